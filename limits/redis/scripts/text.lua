-- What a value and an answer are written as.
--
-- Lua's numbers are exact to 2^53 only. So instants are written as seconds and nanoseconds, and
-- reckoned with in nanoseconds from now: now is 0, what has been is negative.
local NEVER, SECOND, MAX = -math.huge, 1e9, 2 ^ 53
local now_s, now_ns
local pace = 1 -- how long a key lives, for a test whose time is slower than Redis'

local function set_clock(text)
  if text ~= '' then -- of a test
    local s, ns = string.match(text, '^(%d+)%.(%d+)$')
    now_s, now_ns, pace = tonumber(s), tonumber(ns), 1000
  else
    local t = redis.call('TIME')
    now_s, now_ns = tonumber(t[1]), tonumber(t[2]) * 1000
  end
end

local function corrupt(what) error('TGCORRUPT ' .. what, 0) end

local function number(text)
  local n = string.match(text or '', '^%-?%d+$') and tonumber(text)
  if not n or n > 1e19 or n < -1e19 then corrupt('number') end
  return n
end

local function count(text)
  local n = number(text)
  if n < 0 or n > MAX then corrupt('count') end
  return n
end

local function instant(text)
  if text == '-' then return NEVER end
  local s, ns = string.match(text or '', '^(%-?%d+)%.(%d+)$')
  if not s or #s > 12 or #ns > 9 then corrupt('instant') end
  return (tonumber(s) - now_s) * SECOND + (tonumber(ns) - now_ns)
end

local function written(t)
  if t == NEVER then return '-' end
  t = math.max(-2e18, math.min(2e18, t))
  local s = math.floor((t + now_ns) / SECOND)
  return string.format('%.0f.%09.0f', s + now_s, math.min(t + now_ns - s * SECOND, SECOND - 1))
end

local function split(text, separator)
  local all = {}
  for part in string.gmatch(text, '[^' .. separator .. ']+') do all[#all + 1] = part end
  return all
end

local function whole(n) return string.format('%.0f', n) end

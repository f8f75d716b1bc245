-- pause: the pause of one upstream. ARGV: who says so, for how many milliseconds it still lasts (0 only asks),
-- how long ago the refusal was, violations, reason. The longer pause stays; the key lives as long as it.
-- The answer: nothing, or who said so, when it was written, how long it lasts, how long ago, violations, reason;
-- and first of all 1 if the value cannot be meant.
local t = redis.call('TIME')
local now, bad = tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000), 0
local function out(by, at, till, last, n, why)
  return {bad, by, string.format('%.0f', at), string.format('%.0f', till - now), string.format('%.0f', math.max(0, now - last)), string.format('%.0f', n), why}
end
local had = redis.pcall('GET', KEYS[1])
local by, at, till, last, n, why
if type(had) == 'table' then bad = 1 elseif had then
  by, at, till, last, n, why = string.match(had, '^1 (%S+) (%d+) (%d+) (%d+) (%d+) (.*)$')
  if not by or #at > 15 or #till > 15 or #last > 15 or #n > 6 or #why > 300 then
    bad, by = 1, nil
  else
    at, till, last, n = tonumber(at), tonumber(till), tonumber(last), tonumber(n)
  end
end
local more = tonumber(ARGV[2])
if more > 0 and not (by and till >= now + more) then
  local seen, count = now - tonumber(ARGV[3]), tonumber(ARGV[4])
  if by then seen, count = math.max(seen, last), math.max(count, n) end
  by, at, till, last, n, why = ARGV[1], now, now + more, seen, count, ARGV[5]
  redis.call('SET', KEYS[1], string.format('1 %s %.0f %.0f %.0f %.0f %s', by, at, till, last, n, why), 'PX', more)
end
if not by or till <= now then return {bad} end
return out(by, at, till, last, n, why)

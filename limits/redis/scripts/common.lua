-- What both scripts need: instants, the state of one key, and each kind's mathematics.
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

-- A kind is made of what a spec says and has
--   n             how many it holds
--   per_second    its rate
--   level(st)     how many there are now
--   take(st,n,at) st after n were used at an instant
--   back(st,n)    st after n were given back
--   wait(st,n)    nanoseconds until n are there
--   full(st)      nanoseconds until st is as new
--   spent(st,u)   makes st one of which u are used
--   merge(st,o,w) adds to st what another state has beyond what it was, w, if that is known; st admits no more
--                 than o then
--   keeps         whether instances may keep what they have in hand, used or not
-- over a state with a, b and c, which package limits describes at State; but c of those that count is the highest
-- limit since all was used.
local make = {}

local function keeps(p) return p[2] <= 16 * SECOND end

-- g: token bucket, by interval; a is when it was empty, b when the grace began ('cold', 'warm' or
-- an instant), c the requests in the grace, or below 0 those and one more once the ramp has begun.
function make.g(p)
  local interval, burst, grace, ramp, idle, free = p[1], p[2], p[3], p[4], p[5], p[6]
  local size, slack = interval * burst, 2e7
  local k = {n = burst, per_second = SECOND / interval, idle = idle, free = free, warms = grace > 0 or ramp > 0}
  local function curve(st, t) -- the clock of the ramp, which runs fast at first
    local rem = st.b + grace + ramp - math.max(t, st.b + grace)
    if rem <= 0 or ramp == 0 then return t end
    local times = 2
    if grace > 0 then times = math.max(2, (-st.c - 1) * interval / grace) end
    return st.b + grace + ramp - rem - math.ceil((times - 1) / (2 * ramp) * rem * rem)
  end
  local function ramping(st) return type(st.b) == 'number' and st.c < 0 end
  function k.settle(st)
    if st.a > SECOND and not ramping(st) then st.a, st.back = 0, true end -- the clock was set back
    if not k.warms then
      if st.b ~= 'cold' or st.a ~= NEVER then st.b, st.c = 'warm', 0 end
      return
    end
    if st.b == 'warm' and idle > 0 and st.a + size + idle < 0 and st.a ~= NEVER then st.a, st.b, st.c = NEVER, 'cold', 0 end
    if type(st.b) ~= 'number' then return end
    if st.b > SECOND then st.b, st.c, st.a = 'warm', 0, 0 return end
    if st.c >= 0 and st.b + grace <= 0 then
      st.c = -st.c - 1
      st.a = curve(st, st.b + grace) - interval
    end
    if st.c < 0 and st.b + grace + ramp <= 0 then
      st.a = math.max(st.a, st.b + grace + ramp - interval)
      st.b, st.c = 'warm', 0
    end
  end
  function k.grace(st) -- how long nothing is limited
    if k.warms and st.b == 'cold' and grace > 0 then return grace end
    if k.warms and type(st.b) == 'number' and st.c >= 0 then return st.b + grace end
    return 0
  end
  function k.begin(st)
    if not k.warms or st.b ~= 'cold' then return end
    st.b, st.c = 0, 0
    k.settle(st)
  end
  local function empty(st, n, at)
    if ramping(st) then
      local v = curve(st, 0)
      return math.max(st.a, v - size, curve(st, -slack) - n * interval), v
    end
    return math.max(st.a, at - size), 0
  end
  function k.level(st)
    local z, t = empty(st, 1, 0)
    return math.min(burst, math.floor((t - z) / interval))
  end
  function k.take(st, n, at)
    if st.b == 'cold' then
      if k.warms then k.begin(st) else st.b = 'warm' end
    end
    st.a = empty(st, n, at) + n * interval
  end
  function k.back(st, n) st.a = st.a - math.min(n, burst) * interval end
  function k.wait(st, n)
    local z, t = empty(st, n, 0)
    local want = z + n * interval
    if want <= t then return 0 end
    if not ramping(st) then return want end
    local stop = st.b + grace + ramp
    local lo, hi = 0, math.max(stop, 0)
    while lo < hi do
      local mid = math.floor((lo + hi) / 2)
      if curve(st, mid) >= want then hi = mid else lo = mid + 1 end
    end
    if lo < stop then return lo end
    return math.max(stop, math.max(z, stop - interval) + n * interval)
  end
  function k.full(st)
    local z = st.a
    if type(st.b) == 'number' then z = math.max(z, st.b + grace + ramp - interval) end
    return math.max(0, z + size)
  end
  function k.keep(st) return k.full(st) + (k.warms and idle or 0) end
  function k.spent(st, u)
    st.a = u > 0 and u * interval - size or NEVER
    st.b, st.c = 'warm', 0
  end
  function k.merge(st, o, was)
    if st.b == 'warm' and o.b == 'warm' and o.a > -size then
      local more = o.a - math.max(was and was.a or NEVER, -size)
      st.a = math.max(st.a, o.a, math.min(0, math.max(st.a, -size) + math.max(0, more)))
    elseif o.a > st.a then
      st.a, st.b, st.c = o.a, o.b, o.c
    elseif type(o.b) == 'number' and type(st.b) == 'number' then
      st.b = math.max(st.b, o.b)
    end
    if o.b == 'warm' then st.b, st.c = 'warm', 0 end
  end
  return k
end

-- c: counts in periods, whose bounds the caller gives; a is the last instant of the period that b,
-- the count, belongs to.
function make.c(p, bounds)
  local k = {n = p[1], period = p[2], per_second = p[1] / p[2] * SECOND, keeps = keeps(p)}
  local from, to = 0, 1
  if bounds then
    for i = 1, 3 do
      if bounds[i] <= 0 and 0 < bounds[i + 1] then from, to = bounds[i], bounds[i + 1] end
    end
    if from == 0 and to == 1 and bounds[2] ~= 0 then error('TGCLOCK ' .. written(0), 0) end
  end
  k.from = from
  function k.settle(st)
    if st.a == NEVER or st.a < from then
      st.a, st.b, st.c = to - 1, 0, 0
    elseif st.a >= to then -- the clock was set back
      if st.b > 0 then st.b, st.back = k.n, true end
      st.a = to - 1
    end
  end
  function k.level(st) return k.n - st.b end
  function k.take(st, n, at) if at >= from then st.b = st.b + n end end
  function k.back(st, n) st.b = math.max(0, st.b - n) end
  function k.wait(st, n) return n <= k.n - st.b and 0 or to end
  function k.full(st) return st.b > 0 and to or 0 end
  function k.spent(st, u) st.a, st.b = to - 1, u end
  function k.merge(st, o, was)
    if o.a > st.a then st.a, st.b = o.a, 0 end
    if o.a == st.a then st.b = math.max(o.b, st.b + math.max(0, o.b - (was and was.a == o.a and was.b or 0))) end
  end
  return k
end

-- w: never more than n in any period; log is pairs of an instant and how many came then.
function make.w(p)
  local n, period = p[1], p[2]
  local k = {n = n, period = period, per_second = n / period * SECOND, log = true, keeps = keeps(p)}
  local chunk = math.ceil(n / 128)
  function k.settle(st)
    local log, kept = st.log, {}
    if #log == 0 and st.b > 0 and st.a ~= NEVER then log = {{st.a, st.b}} end
    if #log > 0 and log[#log][1] > SECOND then log, st.back = {{0, n}}, true end
    for _, e in ipairs(log) do
      if e[1] + period > 0 then kept[#kept + 1] = e end
    end
    st.log = kept
    if #kept == 0 then st.c = 0 end
  end
  local function used(st)
    local u = 0
    for _, e in ipairs(st.log) do u = u + e[2] end
    return u
  end
  function k.level(st) return n - used(st) end
  function k.take(st, m, at)
    if m <= 0 or at + period <= 0 then return end
    local i = #st.log -- the last that is no later; instances report in any order
    while i > 0 and st.log[i][1] > at do i = i - 1 end
    local before, after = st.log[i], st.log[i + 1]
    if before and (before[1] == at or before[2] + m <= chunk) then
      before[1], before[2] = at, before[2] + m
    elseif after and after[2] + m <= chunk then
      after[2] = after[2] + m
    else
      table.insert(st.log, i + 1, {at, m})
    end
  end
  function k.back(st, m)
    while m > 0 and #st.log > 0 do
      local last = st.log[#st.log]
      local out = math.min(m, last[2])
      last[2], m = last[2] - out, m - out
      if last[2] == 0 then st.log[#st.log] = nil end
    end
  end
  function k.undo(st, m, at) -- m that were used at an instant or just before, or else ones before them
    local i, log = 1, st.log
    at = at - 5e7 -- reports take longer and shorter
    while i < #log and log[i][1] < at do i = i + 1 end
    local up = i
    for _, range in ipairs({{i, 1, -1}, {up + 1, #log, 1}}) do
      for j = range[1], range[2], range[3] do
        local out = math.min(m, log[j] and log[j][2] or 0)
        if out > 0 then log[j][2], m = log[j][2] - out, m - out end
      end
    end
    for j = #log, 1, -1 do
      if log[j][2] == 0 then table.remove(log, j) end
    end
  end
  function k.wait(st, m)
    local over = used(st) + m - n
    for _, e in ipairs(st.log) do
      if over <= 0 then break end
      over = over - e[2]
      if over <= 0 then return e[1] + period end
    end
    return over <= 0 and 0 or period
  end
  function k.full(st) return #st.log > 0 and math.max(0, st.log[#st.log][1] + period) or 0 end
  function k.spent(st, u) st.log = u > 0 and {{0, u}} or {} end
  function k.merge(st, o, was)
    if o.a + period <= 0 then return end
    k.settle(st)
    local known = was and was.a + period > 0 and was.b or 0
    k.take(st, math.max(0, o.b - known, o.b - used(st)), o.a)
  end
  return k
end

-- i: n, then silence; a is the last request, b the count since the last silence.
function make.i(p)
  local n, period = p[1], p[2]
  local k = {n = n, period = period, per_second = n / period * SECOND, silence = true}
  function k.settle(st)
    if st.a > SECOND then st.a, st.b, st.back = 0, n, true end
    if st.a + period <= 0 then st.a, st.b, st.c = NEVER, 0, 0 end
  end
  function k.level(st) return n - st.b end
  function k.take(st, m, at)
    if m <= 0 then return end
    if at - st.a >= period then st.b = 0 end
    st.a, st.b = math.max(st.a, at), st.b + m
  end
  function k.back(st, m) st.b = math.max(0, st.b - m) end
  function k.wait(st, m) return m <= n - st.b and 0 or math.max(0, st.a + period) end
  function k.full(st) return st.b > 0 and math.max(0, st.a + period) or 0 end
  function k.spent(st, u) st.a, st.b = u > 0 and 0 or NEVER, u end
  function k.merge(st, o, was)
    if o.a + period <= 0 then return end
    k.settle(st)
    local known = was and was.a + period > 0 and was.b or 0
    st.a, st.b = math.max(st.a, o.a), math.max(o.b, st.b + math.max(0, o.b - known))
  end
  return k
end

local function kind(spec, bounds)
  local p = split(spec, ':')
  local of = table.remove(p, 1)
  if not make[of] then corrupt('kind') end
  for i = 1, of == 'g' and 6 or 2 do p[i] = number(p[i]) end
  if p[1] < 1 or p[2] < 1 then corrupt('spec') end
  return make[of](p, bounds)
end

local function warmth(text)
  if text == 'cold' or text == 'warm' then return text end
  return instant(text)
end

local function state(spec, a, b, c)
  local st = {a = instant(a), b = 0, c = 0, log = {}}
  if string.sub(spec, 1, 1) == 'g' then
    st.b, st.c = warmth(b), number(c)
  else
    st.b, st.c = count(b), count(c)
  end
  return st
end

local BASES = 4 -- that a key remembers

-- bases reads what a key was begun from when the store had lost it, the last first.
local function bases(text)
  local all = {}
  if text == '-' then return all end
  for _, e in ipairs(split(text, ',')) do
    local of, epoch, seq, a, b = string.match(e, '^(%l)/(%d+)/(%d+)/([^/]+)/([^/]+)$')
    if not of then corrupt('base') end
    local was = state(of, a, b, '0')
    was.of, was.epoch, was.seq = of, count(epoch), count(seq)
    all[#all + 1] = was
  end
  if #all > BASES then corrupt('bases') end
  return all
end

-- load reads a key: "2 reset epoch seq spec a b c log bases holders".
local function load(key)
  local v = redis.pcall('GET', key)
  if type(v) == 'table' then corrupt('type') end
  if not v then return nil end
  local reset, epoch, seq, spec, a, b, c, log, base, held =
    string.match(v, '^2 (%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+) (%S+)$')
  if not reset then corrupt('value') end
  local st = state(spec, a, b, c)
  st.reset, st.epoch, st.seq, st.spec, st.holders = count(reset), count(epoch), count(seq), spec, {}
  if log ~= '-' then
    local last = NEVER
    for _, e in ipairs(split(log, ',')) do
      local t, n = string.match(e, '^([^/]+)/(%d+)$')
      if not t then corrupt('log') end
      st.log[#st.log + 1] = {math.max(last, instant(t)), count(n)}
      last = st.log[#st.log][1]
    end
  end
  st.bases = bases(base)
  if held ~= '-' then
    for _, e in ipairs(split(held, ',')) do
      local id, session, n, g, u, r, o, over, deadline = string.match(e, '^([^=]+)=(%d+)/(%d+)/(%d+)/(%-?%d+)/(%d+)/(%-?%d+)/(x?)([^/]+)$')
      if not id then corrupt('holder') end
      st.holders[#st.holders + 1] = {id = id, session = session, n = count(n),
        g = number(g), u = number(u), r = number(r), o = number(o), over = over == 'x', deadline = instant(deadline)}
    end
  end
  return st
end

local function holder(st, id, session)
  for _, h in ipairs(st.holders) do
    if h.id == id and h.session == session then return h end
  end
end

-- add adds to st what is remembered, n, beyond what both have in common. Each may have been begun from another state
-- and that from another; where st has nothing of all of them, it may have the same uses from elsewhere.
local function add(st, k, n, from)
  table.insert(from, 1, n)
  for i, m in ipairs(from) do
    for _, was in ipairs(st.bases) do
      if was.epoch == m.epoch and was.of == n.of then
        if m.seq > was.seq then
          k.merge(st, m, was)
          was.seq, was.a, was.b = m.seq, m.a, m.b
        end
        for above = i - 1, 1, -1 do
          k.merge(st, from[above], from[above + 1])
          table.insert(st.bases, 1, from[above])
        end
        st.bases[BASES + 1] = nil
        return
      end
    end
  end
  k.merge(st, n, #st.bases > 0 and n or nil)
  table.insert(st.bases, 1, n)
  st.bases[BASES + 1] = nil
end

-- known is what the caller remembers: "reset epoch seq a b c bases". Where the store has its entry, that is in there;
-- if the entry is older than the caller has heard, the store is that of a replica that never heard, or from a disk,
-- and what was reported since is just reported again. A key that the store has lost begins a new epoch from what the
-- first to come remembers, its base. What the next ones remember beyond that is added, once; so nothing that was told
-- before counts twice, and nothing that was told since is lost. Who comes with a note of another epoch is in the key
-- as far as it was acknowledged.
local function remember(st, k, spec, known, id, session, held)
  if st and id and holder(st, id, session) then return st end
  local reset, epoch, seq, a, b, c, from = string.match(known, '^(%d+) (%d+) (%d+) (%S+) (%S+) (%S+) (%S+)$')
  local n, of = state(spec, a, b, c), string.sub(spec, 1, 1)
  n.of, n.reset, n.epoch, n.seq = of, tonumber(reset), tonumber(epoch), tonumber(seq)
  from = bases(from)
  local fresh = now_s * 1e6 + math.floor(now_ns / 1000)
  if not st then
    st = {a = n.a, b = n.b, c = n.c, log = {}, reset = n.reset, seq = n.seq, spec = spec, holders = {}, bases = {}}
    st.epoch, st.news, st.begun = math.max(fresh, n.epoch + 1), n.seq > 0, true
    if st.news then
      table.insert(from, 1, n)
      st.bases, from[BASES + 1] = from, nil
    end
    return st
  end
  if n.reset < st.reset or n.seq == 0 then return st end
  local same = n.reset == st.reset and n.epoch == st.epoch
  if same and (held == '1' or n.seq <= st.seq and held ~= '2') then return st end
  st.news = true
  if string.sub(st.spec, 1, 1) ~= of then return st end
  if n.reset > st.reset then
    st.a, st.b, st.c, st.log, st.reset = n.a, n.b, n.c, {}, n.reset
  elseif n.epoch < st.epoch then
    add(st, k, n, from)
    return st
  else -- later than all that the store has
    k.merge(st, n, n)
  end
  st.epoch, st.begun, st.seq = math.max(fresh, n.epoch + 1, st.epoch + 1), true, math.max(n.seq, st.seq)
  table.insert(from, 1, n)
  st.bases, from[BASES + 1] = from, nil
  return st
end

-- open makes a state ready to decide by: under the limit that is in force now, at this instant. After a
-- raise there is one at once, but not where the limit is learned: it may go up and down.
local function open(key, spec, bounds, known, learned, id, session, held)
  if bounds == '-' then
    bounds = nil
  else
    local b = split(bounds, ',')
    bounds = {instant(b[1]), instant(b[2]), instant(b[3]), instant(b[4])}
  end
  local k = kind(spec, bounds)
  local st = remember(load(key), k, spec, known, id, session, held)
  if st.spec ~= spec then
    local old = kind(st.spec, string.sub(st.spec, 1, 1) == 'c' and bounds or nil)
    old.settle(st)
    local fixed = string.match(st.spec, '^c:%d+(.*)$')
    if fixed and fixed == string.match(spec, '^c:%d+(.*)$') and not string.find(spec, 'q', 1, true) then
      -- A fixed window keeps its count.
    elseif st.b == 'cold' and k.warms then
      st.a = NEVER
    else
      local used = math.min(math.max(old.n - old.level(st), 0), old.n)
      if st.a == NEVER and #st.log == 0 then used = 0 end
      local carried, peak = math.ceil(used / old.n * k.n), 0
      if not k.idle then -- a bucket refills anyway
        local times = old.period == k.period and 1 or k.period / (old.period or old.n / old.per_second * SECOND)
        if not old.idle then peak = math.ceil(st.c * times) end
        if used > 0 and carried == k.n then
          peak = math.max(peak, math.ceil(old.n * times))
          if k.n > peak and not learned then carried, peak = carried - 1, k.n end
        end
      end
      st.b, st.c, st.log, st.a = 0, 0, {}, NEVER
      k.spent(st, carried)
      if not k.idle then st.c = math.min(peak, MAX) end
    end
    st.spec = spec
  end
  k.settle(st)
  st.held = 0
  local live = {}
  for _, h in ipairs(st.holders) do
    h.out = math.max(0, h.g - h.u - h.r)
    if not h.over and h.deadline <= 0 then
      if h.out > 0 then k.take(st, h.out, math.max(h.deadline, -SECOND)) end -- whoever held it may have used it
      h.u, h.out, h.over, h.deadline = h.u + h.out, 0, true, k.from and 60 * SECOND or 0 -- and may tell yet how much
    end
    if h.deadline > 0 then
      live[#live + 1] = h
      st.held = st.held + h.out
    end
  end
  st.holders = live
  if k.silence and st.held > 0 and st.b > 0 then st.a = math.max(st.a, 0) end
  return st, k
end


local function texts(st, k)
  local a, b = st.a, st.b
  if k.log then
    a, b = NEVER, 0
    for _, e in ipairs(st.log) do a, b = e[1], b + e[2] end
  end
  if type(b) == 'number' then
    b = k.warms and written(b) or string.format('%.0f', b)
  end
  return written(a), b, string.format('%.0f', st.c)
end

local function begun(st)
  local all = {}
  for i, was in ipairs(st.bases) do
    local b = was.b
    if type(b) == 'number' then b = was.of == 'g' and written(b) or string.format('%.0f', b) end
    all[i] = string.format('%s/%.0f/%.0f/%s/%s', was.of, was.epoch, was.seq, written(was.a), b)
  end
  return #all > 0 and table.concat(all, ',') or '-'
end

local function save(key, st, k)
  st.seq = st.seq + 1
  local a, b, c = texts(st, k)
  local log, held, last = {}, {}, 0
  for i, e in ipairs(st.log) do log[i] = written(e[1]) .. '/' .. string.format('%.0f', e[2]) end
  for i, h in ipairs(st.holders) do
    held[i] = string.format('%s=%s/%.0f/%.0f/%.0f/%.0f/%.0f/%s%s', h.id, h.session,
      h.n, h.g, h.u, h.r, h.o, h.over and 'x' or '', written(h.deadline))
    if not h.over then last = math.max(last, h.deadline) end
  end
  local keep = (k.keep or k.full)(st)
  if last > 0 then keep = math.max(keep, last + (k.log and k.full(st) or 0)) + SECOND end
  keep = math.floor(math.min(keep, 2e18) / 1e6 * pace) + 1000
  redis.call('SET', key, string.format('2 %.0f %.0f %.0f %s %s %s %s %s %s %s', st.reset, st.epoch, st.seq, st.spec, a, b, c,
    #log > 0 and table.concat(log, ',') or '-', begun(st), #held > 0 and table.concat(held, ',') or '-'), 'PX', string.format('%.0f', keep))
end

local function whole(n) return string.format('%.0f', n) end

-- What the caller is to remember, and to tell next time.
local function note(st, k)
  local a, b, c = texts(st, k)
  if k.keeps and st.held > 0 then -- which may have been used of late
    if k.log then a = written(0) end
    b = string.format('%.0f', math.min(k.n, k.n - k.level(st) + st.held))
  end
  return whole(st.reset) .. ' ' .. whole(st.epoch) .. ' ' .. whole(st.seq) .. ' ' .. a .. ' ' .. b .. ' ' .. c .. ' ' .. begun(st)
end

-- guard turns what is wrong with a value into an error reply that names it.
local function guard(f)
  local ok, answer = pcall(f)
  if ok then return answer end
  if type(answer) == 'table' then answer = answer.err or 'TGCORRUPT' end
  if string.sub(answer, 1, 2) ~= 'TG' then answer = 'TGCORRUPT ' .. answer end
  return redis.error_reply(answer)
end

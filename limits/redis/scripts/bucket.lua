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

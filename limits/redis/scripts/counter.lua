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
    if o.a == st.a then st.b = math.max(o.b, st.b + beyond(o, was and was.a == o.a and was)) end
  end
  return k
end

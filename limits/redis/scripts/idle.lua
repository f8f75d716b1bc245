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
    st.a, st.b = math.max(st.a, o.a), math.max(o.b, st.b + beyond(o, was and was.a + period > 0 and was))
  end
  return k
end

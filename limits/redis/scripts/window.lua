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
    k.take(st, math.max(beyond(o, was and was.a + period > 0 and was), o.b - used(st)), o.a)
  end
  return k
end

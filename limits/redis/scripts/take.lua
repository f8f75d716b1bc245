-- take: all limits of a request, or none. ARGV: the clock, 'look' to take nothing whatever comes out,
-- then for each key its spec, bounds, what is known, n (0 looks, below 0 gives back) and 1 for a shadow.
-- The answer is 1 or 0, the time, and for each key: allowed, remaining, wait, full, what to remember.
return guard(function()
  set_clock(ARGV[1])
  local opened, answer, admitted = {}, {}, true
  for i, key in ipairs(KEYS) do
    local at = 2 + (i - 1) * 5
    local spec, n = ARGV[at + 1], tonumber(ARGV[at + 4])
    local o = opened[key]
    if not o then
      local st, k = open(key, spec, ARGV[at + 2], ARGV[at + 3])
      o = {st = st, k = k, key = key}
      opened[key] = o
      opened[#opened + 1] = o
    end
    local st, k = o.st, o.k
    local before = k.level(st) - st.held
    local ask, allowed, left, wait = math.max(n, 1), true, before, 0
    local grace = k.grace and k.grace(st) or 0
    if ask > k.n then
      allowed, wait = false, -1
    elseif n < 0 then
      k.back(st, -n)
      left = k.level(st) - st.held
    elseif grace > 0 and (k.free == 0 or st.c + ask <= k.free) then
      left = k.free == 0 and MAX or k.free - st.c
      if n > 0 then
        k.begin(st)
        st.c = st.c + n
        st.a = math.max(st.a, math.min(0, math.max(st.a, -k.n * SECOND / k.per_second) + n * SECOND / k.per_second))
        if k.free > 0 then left = left - n end
      end
    elseif before >= ask then
      if n > 0 then
        k.take(st, n, 0)
        left = before - n
      end
    else
      allowed, wait = false, k.wait(st, ask + st.held)
      if wait == 0 then wait = k.wait(st, k.n) end
      wait = math.max(wait, 1)
    end
    if not allowed and ARGV[at + 5] ~= '1' then admitted = false end
    answer[#answer + 1] = {allowed and 1 or 0, whole(math.max(0, left)), whole(wait), whole(k.full(st)), o}
  end
  if admitted and ARGV[2] ~= 'look' then
    for _, o in ipairs(opened) do save(o.key, o.st, o.k) end
  end
  local out = {admitted and 1 or 0, written(0)}
  for _, e in ipairs(answer) do
    local remembered = admitted and note(e[5].st, e[5].k) or ''
    for _, v in ipairs({e[1], e[2], e[3], e[4], remembered}) do out[#out + 1] = v end
  end
  return out
end)

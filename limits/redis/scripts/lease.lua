-- lease: one instance reports what it has used of one limit and takes more in hand. ARGV: the clock, the
-- spec, its bounds, what is known; instance, session, the number of the report; in this session so far granted, used
-- and given back; what it used without a lease, in all sessions; what Redis has acknowledged of the used and of that;
-- how long ago it was answered last; 1 if there must be an entry of it that is new, 2 if one that is old, else 0, and
-- what of both was before that entry;
-- what it wants beside what it has, what it needs at least; how many it used how long ago in nanoseconds, the last first,
-- before them with a minus what came back; how long its lease is; what it let
-- pass in the grace; 1 to forget all use; what it has to leave there; 1 to break a silence; 1 for a limit that is
-- learned; 1 for a window of which the instance keeps what it has in hand, used or not.
-- The answer: time, granted so far, rest (below 0: so many too many are in hand), wait, full, grace, what to remember, used so far.
return guard(function()
  set_clock(ARGV[1])
  local key, spec, id, session, held = KEYS[1], ARGV[2], ARGV[5], ARGV[6], ARGV[15]
  local st, k = open(key, spec, ARGV[3], ARGV[4], ARGV[26] == '1', id, session, held)
  local arg = {}
  for i = 7, 24 do arg[i] = tonumber(ARGV[i]) end
  local report, g, u, r, o, lasts, reserve = arg[7], arg[8], arg[9], arg[10], arg[11], arg[21], arg[24]
  local want, need, keeps = arg[18], arg[19], ARGV[27] == '1'
  if ARGV[23] == '1' then
    st.reset, st.log, st.b, st.c, st.a = now_s * 1e6 + math.floor(now_ns / 1000), {}, k.idle and 'warm' or 0, 0, NEVER
    st.seq, st.bases = 0, {}
    k.spent(st, 0)
    k.settle(st)
  end
  local mine = holder(st, id, session)
  if mine and report <= mine.n then -- one that others have overtaken
    return {written(0), whole(mine.g), '0', '0', whole(k.full(st)), '0', note(st, k), whole(mine.u)}
  end
  local since = arg[14] -- nothing was used before, and nothing of an earlier period comes back
  if not mine then
    mine = {id = id, session = session, g = g, u = math.max(u, arg[12]), r = r, o = arg[13], out = 0} -- its lease is over, and counts as used
    if st.news then
      mine.u = arg[12]
    elseif held == '1' then
      mine.u, mine.o = arg[16], arg[17]
    end
    st.holders[#st.holders + 1] = mine
  end
  local spent, beside = u - mine.u, o - mine.o
  local function back(n) if not k.from or k.from <= -since then k.back(st, n) end end
  local oldest = k.keeps and math.huge or since -- of a window that it keeps
  for n, age in string.gmatch(ARGV[20], '%-(%d+)/(%d+)') do -- what came back of what was told before
    if k.undo then
      k.undo(st, tonumber(n), -tonumber(age))
      spent = spent + tonumber(n)
    end
  end
  for n, age in string.gmatch(string.gsub(ARGV[20], '%-%d+/%d+,', ''), '(%d+)/(%d+)') do
    local some = math.min(tonumber(n), spent)
    if some > 0 then
      k.take(st, some, -math.min(tonumber(age), oldest))
      spent = spent - some
    end
  end
  if spent > 0 then k.take(st, spent, 0) end -- of a report that was lost
  if spent < 0 then back(-spent) end
  -- What was used without a lease counts though the limit be exceeded by it, since what is held may come back.
  -- A bucket that fills smoothly has no room for that.
  if beside > 0 then k.take(st, math.min(beside, k.begin and math.max(0, k.level(st)) or k.n), 0) end
  if beside < 0 then back(-beside) end
  mine.g = math.max(mine.g, g) -- a replica may not have heard of the last
  st.held = st.held - mine.out
  mine.n, mine.u, mine.r, mine.o, mine.over = report, u, r, o, false
  mine.out = math.max(0, mine.g - u - r)
  st.held = st.held + mine.out
  local seen = arg[22]
  if seen > 0 and type(st.b) == 'number' and k.grace and st.c >= 0 and k.free == 0 then st.c = st.c + seen end

  if ARGV[25] == '1' and k.silence then -- the count stays, and taking it again breaks the silence
    k.back(st, 1)
    k.take(st, 1, 0)
  end

  local free, wait = 0, 0
  if k.grace and need > 0 then
    free = k.grace(st)
    if free > 0 then
      k.begin(st)
      if k.free > 0 then -- what goes free is capped: it is lent like the rest
        local some = math.min(math.max(0, k.free - st.c), math.max(need, math.floor((k.free - st.c) / 4)))
        st.c, free = st.c + some, some > 0 and -some or 0
        st.a = math.max(st.a, math.min(0, math.max(st.a, -k.n * SECOND / k.per_second) + some * SECOND / k.per_second))
      end
    end
  end
  local room = k.level(st) - st.held - reserve
  if free == 0 and room > 0 then
    -- Half of what is left, so that others find something too; but no last crumbs, each a call.
    local part = room * 8 <= k.n - reserve and room or math.floor(room / 2)
    local more = room >= need and math.max(need, math.min(want, part)) or 0 -- a part of it helps nobody
    if more > 0 then
      if k.begin then k.begin(st) end
      mine.g, room = mine.g + more, room - more
      if more <= need and not keeps then -- for a request that waits for it: as good as used
        k.take(st, more, 0)
        mine.u = mine.u + more
      else
        mine.out, st.held = mine.out + more, st.held + more
      end
    end
  end
  if free == 0 then
    local ask = math.max(need, 1)
    if ask > k.n then
      wait = -1
    elseif room < ask then
      wait = k.wait(st, math.min(ask + st.held + reserve, math.max(k.n, ask)))
      if wait == 0 then wait = k.wait(st, k.n) end
      if wait == 0 and k.keeps then wait = k.n / k.per_second * SECOND / 20 end -- others keep it
    end
  end
  mine.deadline = lasts
  if mine.g == 0 and u == 0 and r == 0 and o == 0 then -- nothing to remember
    for i, h in ipairs(st.holders) do
      if h == mine then table.remove(st.holders, i) break end
    end
  end
  save(key, st, k)
  return {written(0), whole(mine.g), whole(room), whole(wait), whole(k.full(st)), whole(free), note(st, k), whole(mine.u)}
end)

-- lease: one instance reports what it has used of one limit and takes more in hand. Its arguments are:
local FIELDS = {
  'clock', 'spec', 'bounds', -- of the limit
  'known', -- what the instance remembers
  'id', 'session', 'report', -- who reports, in which session, the number of the report
  'granted', 'used', 'returned', -- in this session, so far
  'outside', -- what it used without a lease, in all sessions
  'acked', 'told', -- of used and of outside, what Redis has acknowledged
  'silent', -- how long ago it was answered last
  'entry', -- 1 if there must be an entry of it that is new, 2 if one that is old, else 0,
  'acked_before', 'told_before', -- and what was acknowledged before that entry
  'want', 'need', -- beside what it has: how many, and how many at least
  'spent', -- how many it used how long ago in nanoseconds, the last first; before them with a minus what came back
  'lasts', -- how long its lease is
  'passed', -- what it let pass in the grace
  'reset', -- 1 to forget all use
  'reserve', -- what it has to leave there
  'touched', -- 1 to break a silence
  'learned', -- 1 for a limit that is learned
  'keeps', -- 1 for a window of which the instance keeps what it has in hand, used or not
}
local TEXTS = {clock = true, spec = true, bounds = true, known = true, id = true, session = true, spent = true}
local arg = {}
for i, name in ipairs(FIELDS) do arg[name] = TEXTS[name] and ARGV[i] or tonumber(ARGV[i]) end

-- forget makes st one of which nothing was used.
local function forget(st, k)
  st.reset, st.log, st.b, st.c, st.a = now_s * 1e6 + math.floor(now_ns / 1000), {}, k.idle and 'warm' or 0, 0, NEVER
  st.seq, st.bases = 0, {}
  k.spent(st, 0)
  k.settle(st)
end

-- enter makes an entry of the instance: its lease is over, and counts as used.
local function enter(st)
  local mine = {id = arg.id, session = arg.session, g = arg.granted, u = math.max(arg.used, arg.acked), r = arg.returned, o = arg.told, out = 0}
  if st.news then
    mine.u = arg.acked
  elseif arg.entry == 1 then
    mine.u, mine.o = arg.acked_before, arg.told_before
  end
  st.holders[#st.holders + 1] = mine
  local presumed = holder(st, PRESUMED, '0')
  if presumed then
    local part = math.max(0, math.min(presumed.out, mine.g - mine.u - mine.r))
    presumed.g, presumed.out, st.held = presumed.g - part, presumed.out - part, st.held - part
  end
  return mine
end

-- leave removes an entry of which nothing needs to be remembered.
local function leave(st, mine)
  if mine.g > 0 or arg.used ~= 0 or arg.returned ~= 0 or arg.outside ~= 0 then return end
  for i, h in ipairs(st.holders) do
    if h == mine then
      table.remove(st.holders, i)
      return
    end
  end
end

-- spend takes out what was used since the last report, each part as of when it was. Nothing was used before since,
-- and nothing of an earlier period comes back; but of a window that is kept all may be told at once.
local function spend(st, k, mine, since)
  local spent, beside = arg.used - mine.u, arg.outside - mine.o
  local function back(n) if not k.from or k.from <= -since then k.back(st, n) end end
  local oldest = k.keeps and math.huge or since
  for n, age in string.gmatch(arg.spent, '%-(%d+)/(%d+)') do -- what came back of what was told before
    if k.undo then
      k.undo(st, tonumber(n), -tonumber(age))
      spent = spent + tonumber(n)
    end
  end
  for n, age in string.gmatch(string.gsub(arg.spent, '%-%d+/%d+,', ''), '(%d+)/(%d+)') do
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
end

-- book notes what the instance has in hand, after its report.
local function book(st, mine)
  mine.g = math.max(mine.g, arg.granted) -- a replica may not have heard of the last
  st.held = st.held - mine.out
  mine.n, mine.u, mine.r, mine.o, mine.over = arg.report, arg.used, arg.returned, arg.outside, false
  mine.out = math.max(0, mine.g - mine.u - mine.r)
  st.held = st.held + mine.out
end

-- release lets requests go free, in a grace. It returns for how long, below 0 how many, 0 if none.
local function release(st, k)
  local lasts = k.grace and arg.need > 0 and k.grace(st) or 0
  if lasts <= 0 then return 0 end
  k.begin(st)
  if k.free == 0 then return lasts end
  -- What goes free is capped: it is lent like the rest.
  local some = math.min(math.max(0, k.free - st.c), math.max(arg.need, math.floor((k.free - st.c) / 4)))
  st.c = st.c + some
  st.a = math.max(st.a, math.min(0, math.max(st.a, -k.n * SECOND / k.per_second) + some * SECOND / k.per_second))
  return some > 0 and -some or 0
end

-- lend grants out of the room that there is, and returns what is left of it.
local function lend(st, k, mine, room)
  if room <= 0 or room < arg.need then return room end -- a part of what a request needs helps nobody
  -- Half of what is left, so that others find something too; but no last crumbs, each a call.
  local part = room * 8 <= k.n - arg.reserve and room or math.floor(room / 2)
  local more = math.max(arg.need, math.min(arg.want, part))
  if more <= 0 then return room end
  if k.begin then k.begin(st) end
  mine.g = mine.g + more
  if more <= arg.need and arg.keeps ~= 1 then -- for a request that waits for it: as good as used
    k.take(st, more, 0)
    mine.u = mine.u + more
  else
    mine.out, st.held = mine.out + more, st.held + more
  end
  return room - more
end

-- await returns how long it takes until what the instance needs can be had, -1 if never.
local function await(st, k, room)
  local ask = math.max(arg.need, 1)
  if ask > k.n then return -1 end
  if room >= ask then return 0 end
  local wait = k.wait(st, math.min(ask + st.held + arg.reserve, math.max(k.n, ask)))
  if wait == 0 then wait = k.wait(st, k.n) end
  if wait == 0 and k.keeps then wait = k.n / k.per_second * SECOND / 20 end -- others keep it
  return wait
end

-- The answer: time, granted so far, rest (below 0: so many too many are in hand), wait, full, grace, what to remember, used so far.
return guard(function()
  set_clock(arg.clock)
  local st, k = open(KEYS[1], arg.spec, arg.bounds, arg.known, arg.learned == 1, arg.id, arg.session, arg.entry)
  if arg.reset == 1 then forget(st, k) end
  local mine = holder(st, arg.id, arg.session)
  if mine and arg.report <= mine.n then -- one that others have overtaken
    return {written(0), whole(mine.g), '0', '0', whole(k.full(st)), '0', note(st, k), whole(mine.u)}
  end
  mine = mine or enter(st)
  spend(st, k, mine, arg.silent)
  book(st, mine)
  if arg.passed > 0 and type(st.b) == 'number' and k.grace and st.c >= 0 and k.free == 0 then st.c = st.c + arg.passed end
  if arg.touched == 1 and k.silence then -- the count stays, and taking it again breaks the silence
    k.back(st, 1)
    k.take(st, 1, 0)
  end
  local free, wait = release(st, k), 0
  local room = k.level(st) - st.held - arg.reserve
  if free == 0 then
    room = lend(st, k, mine, room)
    wait = await(st, k, room)
  end
  mine.deadline = arg.lasts
  leave(st, mine)
  save(KEYS[1], st, k)
  return {written(0), whole(mine.g), whole(room), whole(wait), whole(k.full(st)), whole(free), note(st, k), whole(mine.u)}
end)

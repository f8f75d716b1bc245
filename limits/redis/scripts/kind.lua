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

-- beyond is how many o has that a state it once was, was, had not.
local function beyond(o, was) return math.max(0, o.b - (was and was.b or 0)) end

local function kind(spec, bounds)
  local p = split(spec, ':')
  local of = table.remove(p, 1)
  if not make[of] then corrupt('kind') end
  for i = 1, of == 'g' and 6 or 2 do p[i] = number(p[i]) end
  if p[1] < 1 or p[2] < 1 then corrupt('spec') end
  return make[of](p, bounds)
end

-- include: log
-- Writes revocation entries (25 bytes: kind, target, cutoff) to the shard: to the sets of their expiry windows, from which verifiers
-- start, and to the log, which they follow (revocation.md). A script collects {entry, life} and calls this once, however many sessions
-- it ends; life: seconds until no token that the entry could concern is alive. An entry that is there already is logged again: who waits
-- for the replicas then waits for something. Returns the last one's sequence number; 0 if there is none.
local function window_end(now, life)
  local step = life > 86400 and 86400 or 300
  return math.ceil((now / 1000 + life) / step) * step
end

local function window_set(tag, window)
  return tag .. ':rev:' .. window
end

-- Lua unpacks some thousands at most.
local MEMBERS = 1000

local function blacklist(tag, entries, nonce, now)
  if #entries == 0 then
    return 0
  end
  local windows, members, window_of = tag .. ':windows', {}, {}
  for i, one in ipairs(entries) do
    local window = whole(window_end(now, one[2]))
    local its = members[window] or {}
    its[#its + 1], members[window], window_of[i] = one[1], its, window
  end
  for window, its in pairs(members) do
    local set = window_set(tag, window)
    for i = 1, #its, MEMBERS do
      redis.call('SADD', set, unpack(its, i, math.min(i + MEMBERS - 1, #its)))
    end
    redis.call('EXPIREAT', set, window)
    redis.call('ZADD', windows, window, window)
  end
  redis.call('ZREMRANGEBYSCORE', windows, '-inf', whole(now / 1000))
  local log, at = tag .. ':log', whole(now)
  local tail = log_tail(log, nonce, now)
  for i, one in ipairs(entries) do
    local seq = whole(tail + i)
    redis.call('XADD', log, seq .. '-0', 'e', one[1], 'w', window_of[i], 'n', nonce .. ':' .. seq, 't', at)
  end
  log_trim(log, now, #entries)
  return tail + #entries
end

-- Wakes the followers; once a script, behind its entries. It is no more than a hint: where publishing is not permitted, they poll.
local function announce(tag)
  redis.pcall('PUBLISH', tag .. ':hint', '')
end

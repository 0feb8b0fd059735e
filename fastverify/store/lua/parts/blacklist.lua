-- include: log
-- Writes one revocation entry (25 bytes: kind, target, cutoff) to the shard: to the set of its expiry window, from which verifiers
-- start, and to the log, which they follow (revocation.md). life: seconds until no token that it could concern is alive. An entry that
-- is there already is logged again: who waits for the replicas then waits for something. Returns its sequence number.
local function window_end(now, life)
  local step = life > 86400 and 86400 or 300
  return math.ceil((now / 1000 + life) / step) * step
end

local function window_set(tag, window)
  return tag .. ':rev:' .. window
end

local function blacklist(tag, entry, life, nonce, now)
  local log, windows = tag .. ':log', tag .. ':windows'
  local window = whole(window_end(now, life))
  local set = window_set(tag, window)
  redis.call('SADD', set, entry)
  redis.call('EXPIREAT', set, window)
  redis.call('ZADD', windows, window, window)
  redis.call('ZREMRANGEBYSCORE', windows, '-inf', whole(now / 1000))
  local seq = log_tail(log, nonce, now) + 1
  redis.call('XADD', log, whole(seq) .. '-0', 'e', entry, 'w', window, 'n', nonce .. ':' .. whole(seq), 't', whole(now))
  log_trim(log, now)
  return seq
end

-- Wakes the followers; once a script, behind its entries. It is no more than a hint: where publishing is not permitted, they poll.
local function announce(tag)
  redis.pcall('PUBLISH', tag .. ':hint', '')
end

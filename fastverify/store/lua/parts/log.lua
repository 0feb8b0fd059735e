-- include: text
-- A shard's log: a stream with ids <seq>-0, dense, each entry with a nonce that came from the caller (a script's own random numbers
-- repeat across a primary and its replica, and then two histories could not be told apart). Fields in this order: e, w, n, t; the
-- genesis entry has only n and t; its nonce is kept beside the log, for another genesis is another dataset.
local KEEP_MS = 2 * 60 * 60 * 1000

local function entry_time(item)
  local fields = item[2]
  return tonumber(fields[#fields])
end

local function log_tail(log, nonce, now)
  local tail = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if not tail then
    redis.call('XADD', log, '1-0', 'n', nonce .. ':genesis', 't', whole(now))
    redis.call('SET', log .. ':genesis', nonce)
    tail = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  end
  local fields = tail[2]
  return tonumber(string.match(tail[1], '^%d+')), fields[#fields - 2]
end

-- An entry goes only when its successor is old: the entry that an idle follower stands on stays. At most a hundred more than came.
local function log_trim(log, now, came)
  local head = redis.call('XRANGE', log, '-', '+', 'COUNT', 2)
  if #head < 2 or entry_time(head[2]) > now - KEEP_MS then
    return
  end
  head = redis.call('XRANGE', log, '-', '+', 'COUNT', 100 + came)
  local first
  for i = 2, #head do
    if entry_time(head[i]) > now - KEEP_MS then
      break
    end
    first = head[i][1]
  end
  redis.call('XTRIM', log, 'MINID', first)
end

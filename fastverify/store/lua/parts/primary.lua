-- include: text
-- The time until which this primary holds back (rotation.md step 0): one that was promoted or restarted may know a little less than
-- the one before it, so for D after it is first seen a token that looks rotated is not taken for theft, and nothing is rotated.
local function hold_until(tag, now, debounce)
  local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  local primary, hold = unpack(redis.call('MGET', tag .. ':primary', tag .. ':hold'))
  if primary ~= replid then
    hold = whole(now + debounce)
    redis.call('MSET', tag .. ':primary', replid, tag .. ':hold', hold)
  end
  return tonumber(hold or 0)
end

-- Whether this primary knows the newest token of a session: once it has answered a refresh after the hold; or if it has had the session
-- from the beginning.
local function knows_newest(record, hold, debounce)
  local created, seen = unpack(redis.call('HMGET', record, 'created_at', 'seen_at'))
  return tonumber(seen) >= hold or tonumber(created) >= hold - debounce
end

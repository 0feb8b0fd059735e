#!lua flags=no-writes
-- Where a follower can go on in a log that is no longer the one it stood in: at the newest entry that both have. Up to there the two are
-- the same, for logs are replicated in order and no two entries have the same nonce.
-- KEYS[1] shard tag. ARGV: seq and nonce of entries that the follower has applied, newest first. Reply: seq of the first that is here, or 0.
for i = 1, #ARGV, 2 do
  local item = redis.call('XRANGE', KEYS[1] .. ':log', ARGV[i] .. '-0', ARGV[i] .. '-0')[1]
  if item and item[2][#item[2] - 2] == ARGV[i + 1] then
    return tonumber(ARGV[i])
  end
end
return 0

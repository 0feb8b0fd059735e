#!lua flags=no-writes
-- The shard's marks. KEYS[1] shard tag. Reply: tenant or '*', and time (ms), of each.
return redis.call('HGETALL', KEYS[1] .. ':marks')

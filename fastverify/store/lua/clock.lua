#!lua flags=no-writes
-- What time it is to a shard's primary. KEYS[1] shard tag. Reply: now (ms).
-- include: time
return now_ms()

"""``fastverify demo``: a process tree that shows the whole of it on one machine."""

"""The session service, its gateway endpoint, the demo, and the ``fastverify`` command. Needs the extra ``server``."""

"""Events: what this process does is told at once, and what all processes do is read from the store.

Run it beside a Redis: python events.py
"""

import fastverify

mails = []


def on_event(event):
    """In the place of your log, your mails, your metrics. It runs in the call that the event is of, so be quick."""
    if event.name == "token_theft":
        mails.append(f"to {event.user_id}: somebody had a copy of your session")


config = fastverify.Config(
    api_domain="http://localhost:8000",
    website_domain="http://localhost:8000",
    secret=b"change me: 32 random bytes or more",
    event_stream=10_000,  # the newest so many of each shard stay in the store
    exchange_seconds=0,  # so that the theft below is one at once
)


def follow(sessions, cursor):
    """What has happened since the cursor, in every process; and a cursor to keep."""
    batch = sessions.events(cursor, limit=1000)
    if batch.missed:
        print("some events are lost")
    for event in batch.events:
        print(event.name, event.user_id, event.why)
    return batch.cursor


def main():
    with fastverify.Sessions.connect("redis://localhost:6379/0", config, on_event=on_event) as sessions:
        cursor = follow(sessions, None)
        stolen = sessions.create("user-1").refresh_token
        sessions.refresh(stolen)  # the owner
        try:
            sessions.refresh(stolen)  # the thief
        except fastverify.TokenTheftDetected:
            pass
        sessions.create("user-2")
        sessions.revoke_user("user-2", why="the password was changed")
        follow(sessions, cursor)
    print(*mails)


if __name__ == "__main__":
    main()

"""One conversation, as a table: bob writes to alice, who has three resources (one eligible, one of
negative priority, one whose connection is lost), and to carol, who is not there. Who gets the
original, who a copy, and what is stored (RFC 6121 8.5, XEP-0280 7 and 8, XEP-0160)."""

from pemb import Client, NS, barrier, q, resume

USERS = ("alice@localhost", "bob@localhost", "carol@localhost")
CARBONS = "urn:xmpp:carbons:2"


def login(server, jid, priority, sm=False):
    c = Client(server, jid).login(sm=sm)
    c.iq("set", f"<enable xmlns='{CARBONS}'/>")
    c.send(f"<presence><priority>{priority}</priority></presence>")
    c.expect_presence(c.jid)
    return c


def note(table, who, c):
    """What c has, by the words of the message: how it came."""
    for e in c.take(lambda e: e.tag == q("c:message")):
        body = e.findtext("c:body", None, NS)
        if body is not None:
            stored = who == "carol" and e.find("delay:delay", NS) is not None
            how = "offline" if stored else "original"
        else:
            how = e[0].tag.split("}")[1]
            body = e.findtext(f"{{{CARBONS}}}{how}/{{urn:xmpp:forward:0}}forwarded/c:message/c:body", None, NS)
        if "barrier-" not in body:
            table.setdefault(body, {}).setdefault(who, []).append(how)


def test_each_message_is_given_copied_or_stored_once(server):
    table = {}
    one = login(server, "alice@localhost/eligible", 5)
    negative = login(server, "alice@localhost/negative", -1)
    lost = login(server, "alice@localhost/lost", 1, sm=True)
    bob, bobs = login(server, "bob@localhost/b", 0), login(server, "bob@localhost/other", -1)
    lost.drop()
    server.wait_log("event=session_detached .*jid=alice@localhost/lost")
    bob.message("alice@localhost", "to the account")
    bob.message("alice@localhost/eligible", "to the eligible one")
    bob.message("alice@localhost/negative", "to the negative one")
    bob.message("alice@localhost/lost", "to the lost one")
    bob.message("carol@localhost", "to who is away")
    barrier(bob, one, negative)
    one.message("bob@localhost/b", "an answer")
    barrier(one, bob, negative)
    barrier(bob, bobs)
    lost, answer = resume(server, lost)
    assert answer.tag == q("sm:resumed")
    barrier(bob, lost)
    carol = login(server, "carol@localhost/later", 0)
    barrier(bob, carol)  # behind what was stored
    for c in (one, negative, lost, bobs):
        c.ping()
    for who, c in (("eligible", one), ("negative", negative), ("lost", lost), ("bob", bob), ("other", bobs),
                   ("carol", carol)):
        note(table, who, c)
    columns = ("eligible", "negative", "lost", "bob", "other", "carol")
    print(f"{'':22}" + "".join(f"{c:11}" for c in columns))
    for body, row in table.items():
        print(f"{body:22}" + "".join(f"{' '.join(row.get(c, ['-'])):11}" for c in columns))
    assert table == {
        "to the account": {"eligible": ["original"], "negative": ["received"], "lost": ["original"], "other": ["sent"]},
        "to the eligible one": {"eligible": ["original"], "negative": ["received"], "lost": ["received"],
                                "other": ["sent"]},
        "to the negative one": {"eligible": ["received"], "negative": ["original"], "lost": ["received"],
                                "other": ["sent"]},
        "to the lost one": {"eligible": ["received"], "negative": ["received"], "lost": ["original"], "other": ["sent"]},
        "to who is away": {"carol": ["offline"], "other": ["sent"]},
        "an answer": {"negative": ["sent"], "lost": ["sent"], "bob": ["original"], "other": ["received"]},
    }
    for c in (one, negative, lost, bob, bobs, carol):
        c.close()

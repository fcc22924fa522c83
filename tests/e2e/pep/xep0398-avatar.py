"""XEP-0398: a picture set by PEP (XEP-0084) or by vCard (XEP-0054) is the same picture, and its hash is
in every available presence (XEP-0153 4)."""

import base64
import hashlib
import xml.etree.ElementTree as ET

from pemb import Client, NS, befriend, q
from pep import PS, event_ids, items, online, publish

USERS = ("alice@localhost", "bob@localhost", "carol@localhost")
DATA, META = "urn:xmpp:avatar:data", "urn:xmpp:avatar:metadata"
UPDATE = "{vcard-temp:x:update}"
VCARD = "<vCard xmlns='vcard-temp'>%s</vCard>"


def picture(text):
    return base64.b64encode(text.encode()).decode(), hashlib.sha1(text.encode()).hexdigest()


def photo_hash(presence):
    x = presence.find(UPDATE + "x")
    return None if x is None else (x.findtext(UPDATE + "photo") or "")


def photo(c, to=None):
    v = c.iq("get", VCARD % "", to=to)
    return v[0].findtext("{vcard-temp}PHOTO/{vcard-temp}BINVAL"), v[0].findtext("{vcard-temp}FN")


def shown(c, sender, hash):
    return c.expect(lambda e: e.tag == q("c:presence") and e.get("from") == sender and photo_hash(e) == hash)


def put_avatar(c, text):
    data, hash = picture(text)
    publish(c, DATA, f"<data xmlns='{DATA}'>{data}</data>", hash)
    publish(c, META, f"<metadata xmlns='{META}'><info bytes='{len(text)}' id='{hash}' type='image/png'/></metadata>", hash)
    return data, hash


def test_3_pep_to_vcard_and_presence(server):
    a = Client(server, "alice@localhost/a").login(presence=True)
    b = Client(server, "bob@localhost/b").login(presence=True)
    befriend(a, b)
    a.iq("set", VCARD % "<FN>Alice</FN><PHOTO><TYPE>image/gif</TYPE><EXTVAL>http://x/</EXTVAL></PHOTO>")
    data, hash = put_avatar(a, "picture one")
    shown(b, a.jid, hash), shown(a, a.jid, hash)
    assert photo(a) == (data, "Alice") == photo(b, "alice@localhost")
    a.send("<presence><show>away</show></presence>")
    assert shown(b, a.jid, hash).findtext("c:show", None, NS) == "away"
    a.send("<presence><x xmlns='vcard-temp:x:update'><photo>0123</photo></x><show>dnd</show></presence>")
    assert shown(b, a.jid, hash).findtext("c:show", None, NS) == "dnd", "the server's is right"
    c = Client(server, "carol@localhost/c").login(presence=True)
    a.send(f"<presence to='{c.jid}'/>")
    shown(c, a.jid, hash) # directed presence, too
    a.send("<presence><x xmlns='vcard-temp:x:update'><photo/></x></presence>")
    shown(b, a.jid, "") # who says that it shows none is believed
    a.close()
    again = Client(server, "alice@localhost/b").login()
    again.send("<presence/>")
    shown(b, again.jid, hash)
    publish(again, META, f"<metadata xmlns='{META}'/>", "none")
    shown(b, again.jid, "")
    assert photo(again) == (None, "Alice")
    for x in (again, b, c):
        x.close()


def test_3_vcard_to_pep(server):
    a = online(Client(server, "carol@localhost/a").login(), [META], ask=True)
    data, hash = picture("picture two")
    folded = data[:5] + "\n  " + data[5:]
    a.iq("set", VCARD % f"<FN>Carol</FN><PHOTO><TYPE>image/png</TYPE><BINVAL>{folded}</BINVAL></PHOTO>")
    assert event_ids(a, META) == [hash]
    shown(a, a.jid, hash)
    got = items(a, DATA)
    assert got[0].get("id") == hash and got[0][0].text == data
    info = items(a, META)[0][0][0]
    assert (info.get("id"), info.get("type"), info.get("bytes")) == (hash, "image/png", "11")
    s = Client(server, "bob@localhost/s").login()
    assert items(s, DATA, to="carol@localhost")[0][0].text == data, "a vCard is for everybody, so is this"
    for bad in ("!!!", "", "x" * 9):
        a.iq("set", VCARD % f"<PHOTO><BINVAL>{bad}</BINVAL></PHOTO>")
    for shard in (0, 1):
        server.kill_process("shard", shard)
    b = Client(server, "carol@localhost/b").login()
    b.send("<presence/>")
    shown(b, b.jid, hash)
    b.iq("set", VCARD % "<FN>Carol</FN>")
    shown(b, b.jid, "")
    b.close()

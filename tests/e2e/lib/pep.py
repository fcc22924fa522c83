"""PEP for tests: requests as one-liners, and what has come."""

import base64
import hashlib
import xml.etree.ElementTree as ET

from pemb import NS, condition, q

PS = "http://jabber.org/protocol/pubsub"
NS.update(ps=PS, own=PS + "#owner", ev=PS + "#event", err=PS + "#errors", x="jabber:x:data",
          rsm="http://jabber.org/protocol/rsm")


def form(type, fields):
    text = "".join("<field var='%s'>%s</field>" % (
        k, "".join(f"<value>{v}</value>" for v in (vs if isinstance(vs, (list, tuple)) else [vs])))
        for k, vs in fields.items())
    return (f"<x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>"
            f"<value>{PS}#{type}</value></field>{text}</x>")


def options(fields):
    return f"<publish-options>{form('publish-options', fields)}</publish-options>" if fields else ""


def publish(c, node, payload="<a xmlns='urn:a'/>", id=None, opts=None, to=None, check=True):
    id = f" id='{id}'" if id else ""
    return c.iq("set", f"<pubsub xmlns='{PS}'><publish node='{node}'><item{id}>{payload}</item></publish>"
                f"{options(opts)}</pubsub>", to=to, check=check)


def retract(c, node, id, notify=False, to=None, check=True):
    n = " notify='true'" if notify else ""
    return c.iq("set", f"<pubsub xmlns='{PS}'><retract node='{node}'{n}><item id='{id}'/></retract>"
                "</pubsub>", to=to, check=check)


def items(c, node, to=None, check=True, inner="", attrs="", after=""):
    a = c.iq("get", f"<pubsub xmlns='{PS}'><items node='{node}' {attrs}>{inner}</items>{after}</pubsub>",
             to=to, check=check)
    return a if not check else a.findall("ps:pubsub/ps:items/ps:item", NS)


def ids(c, node, **k):
    return [i.get("id") for i in items(c, node, **k)]


def owner(c, type, inner, to=None, check=True):
    return c.iq(type, f"<pubsub xmlns='{PS}#owner'>{inner}</pubsub>", to=to, check=check)


def configure(c, node, fields, to=None, check=True):
    return owner(c, "set", f"<configure node='{node}'>{form('node_config', fields)}</configure>", to, check)


def config(c, node):
    a = owner(c, "get", f"<configure node='{node}'/>")
    return {f.get("var"): [v.text for v in f.findall("x:value", NS)] for f in a.iter("{jabber:x:data}field")}


def why(answer):
    """(condition, type, pubsub condition) of an error."""
    extra = [e.tag.split("}")[1] for e in answer.find("c:error", NS) if e.tag.startswith("{%s}" % NS["err"])]
    return (*condition(answer), extra[0] if extra else None)


def is_event(node, sender=None):
    def test(e):
        return (e.tag == q("c:message") and (sender is None or e.get("from") == sender)
                and any(x.get("node") == node for x in e.findall("ev:event/*", NS)))
    return test


def event(c, node, sender=None):
    e = c.expect(is_event(node, sender))
    return e, e.find("ev:event", NS)[0]


def event_ids(c, node, sender=None):
    return [i.get("id") for i in event(c, node, sender)[1]]


def ver(features, identities=("client/pc//Test",)):
    """XEP-0115 5.1"""
    s = "".join(i + "<" for i in sorted(identities)) + "".join(f + "<" for f in sorted(features))
    return base64.b64encode(hashlib.sha1(s.encode()).digest()).decode()


def caps(wanted, node="urn:test", features=None):
    """Features of a client that wants these nodes, and the presence that says so."""
    features = features or ["http://jabber.org/protocol/caps"] + [w + "+notify" for w in wanted]
    v = ver(features)
    return features, f"<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='{node}' ver='{v}'/>"


def answer_caps(c, features, identities=("client/pc//Test",), timeout=None):
    """Waits for the question, and answers it."""
    query = c.expect(lambda e: e.tag == q("c:iq") and e.get("type") == "get"
                     and e.find("info:query", NS) is not None)
    idents = "".join("<identity category='%s' type='%s' name='%s'/>" % (*i.split("/")[:2], i.split("/")[3])
                     for i in identities)
    feats = "".join(f"<feature var='{f}'/>" for f in features)
    node = query.find("info:query", NS).get("node")
    c.send(f"<iq type='result' id='{query.get('id')}' to='{query.get('from')}'>"
           f"<query xmlns='{NS['info']}' node='{node}'>{idents}{feats}</query></iq>")
    return query


def online(c, wanted, ask=False):
    """Presence with caps; ask: such as the server does not know yet."""
    features, element = caps(wanted)
    if ask:
        features, element = caps(wanted, features=features + ["urn:" + c.new_id()])
    c.caps = element
    c.iq("get", "<query xmlns='jabber:iq:roster'/>")
    c.send(f"<presence>{element}</presence>")
    c.expect(lambda e: e.tag == q("c:presence") and e.get("from") == c.jid)
    if ask:
        answer_caps(c, features)
        c.ping()
    return c

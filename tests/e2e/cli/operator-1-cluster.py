"""pemberley cluster init | join-token | join (operator.md 1, 3): the transcript, what is refused and with
which exit code, that keys are nobody else's to read, and that all changes at once. No node runs."""

import base64
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import re
import stat
import subprocess
import tempfile

from pemb import BIN

ENV = dict(os.environ, ASAN_OPTIONS="detect_leaks=0")


@contextlib.contextmanager
def nodes(*names):
    with tempfile.TemporaryDirectory() as tmp:
        tmp = pathlib.Path(tmp)
        for name in names:
            (tmp / f"{name}.conf").write_text(
                f'node {{ name = {name} data_dir = "{tmp}/{name}" run_dir = "{tmp}/run" }}\n'
                'host "localhost" { }\n')
        yield tmp


def run(tmp, node, *args, stdin=b"", more=(), **options):
    r = subprocess.run([BIN / "pemberley", "--config", tmp / f"{node}.conf", *more, "cluster", *args],
                       input=stdin, capture_output=True, timeout=30, env=ENV, **options)
    return r.returncode, r.stdout.decode(), r.stderr.decode()


def files(tmp, node):
    return {p.name: p.read_text() for p in (tmp / node / "cluster").iterdir()}


def openssl(*args, stdin=None):
    return subprocess.run(["openssl", *args], input=stdin, capture_output=True, text=True, timeout=30)


def three(tmp):
    assert run(tmp, "a", "init", "derby")[0] == 0
    return run(tmp, "a", "join-token", "b")[1]


def test_the_transcript():
    with nodes("a", "b") as tmp:
        assert run(tmp, "a", "init", "derby") == (
            0, 'created cluster "derby". Next, for each further node:  pemberley cluster join-token b | '
            'ssh b pemberley cluster join\n', "")
        code, token, err = run(tmp, "a", "join-token", "b")
        assert (code, err) == (0, "") and token.count("\n") == 1, err
        base64.b64decode(token.strip(), validate=True)
        code, out, err = run(tmp, "b", "join", stdin=token.encode())
        assert code == 0 and re.fullmatch(
            r'b: wrote identity of node "b" in cluster "derby" \(valid to \d{4}-\d\d-\d\d\)\. Start it:  '
            r'systemctl start pemberley\n', out), (out, err)


def test_what_is_written_is_nobody_elses_to_read_and_verifies():
    with nodes("a", "b") as tmp:
        run(tmp, "b", "join", stdin=three(tmp).encode())
        assert set(files(tmp, "a")) == {"ca.pem", "ca.key", "node.pem", "node.key", "secret"}
        assert set(files(tmp, "b")) == {"ca.pem", "node.pem", "node.key", "secret"}
        for node in "ab":
            directory = tmp / node / "cluster"
            assert stat.S_IMODE(directory.stat().st_mode) == 0o700
            assert all(stat.S_IMODE(p.stat().st_mode) == 0o600 for p in directory.iterdir())
            for purpose in ("sslclient", "sslserver"):
                r = openssl("verify", "-CAfile", tmp / "a/cluster/ca.pem", "-purpose", purpose,
                            directory / "node.pem")
                assert r.returncode == 0, r.stderr
            text = openssl("x509", "-in", directory / "node.pem", "-noout", "-text").stdout
            assert f"URI:pemberley://derby/{node}" in text and "NIST CURVE: P-256" in text
            assert openssl("x509", "-in", directory / "node.pem", "-noout", "-checkend",
                           str(364 * 86400)).returncode == 0
            assert openssl("x509", "-in", directory / "node.pem", "-noout", "-checkend",
                           str(366 * 86400)).returncode == 1
        assert files(tmp, "a")["secret"] == files(tmp, "b")["secret"]
        assert re.fullmatch("[0-9a-f]{64}\n", files(tmp, "a")["secret"])
        assert openssl("x509", "-in", tmp / "b/cluster/node.pem", "-noout", "-pubkey").stdout == \
            openssl("pkey", "-in", tmp / "b/cluster/node.key", "-pubout").stdout


def test_a_token_is_not_shown_on_a_terminal():
    with nodes("a") as tmp:
        three(tmp)
        master, slave = pty.openpty()
        r = subprocess.run([BIN / "pemberley", "--config", tmp / "a.conf", "cluster", "join-token", "b"],
                           stdout=slave, stderr=subprocess.PIPE, timeout=30, env=ENV)
        os.close(slave)
        os.set_blocking(master, False)
        with contextlib.suppress(OSError): # nothing was written: EAGAIN or EIO
            assert os.read(master, 100) == b""
        os.close(master)
        assert r.returncode == 2 and b"terminal" in r.stderr and b"| ssh b" in r.stderr, r.stderr
        master, slave = pty.openpty()
        r = subprocess.run([BIN / "pemberley", "--config", tmp / "a.conf", "cluster", "join"],
                           stdin=slave, capture_output=True, timeout=30, env=ENV)
        os.close(slave), os.close(master)
        assert r.returncode == 2 and b"standard input" in r.stderr, r.stderr


def test_again_renews():
    with nodes("a", "b") as tmp:
        run(tmp, "b", "join", stdin=three(tmp).encode())
        (tmp / "b/cluster/note").write_text("the operator's")
        before = {n: files(tmp, n) for n in "ab"}
        code, out, err = run(tmp, "a", "init", "derby")
        assert code == 0 and out.startswith('a: renewed the identity of node "a" in cluster "derby"'), err
        token = run(tmp, "a", "join-token", "b")[1]
        code, out, err = run(tmp, "b", "join", stdin=token.encode(), more=("--json",))
        assert code == 0, err
        answer = json.loads(out)
        assert answer["v"] == 1 and answer["node"] == "b" and answer["cluster"] == "derby", out
        for n in "ab":
            after = files(tmp, n)
            assert set(after) == set(before[n])
            assert {f for f in after if after[f] != before[n][f]} == {"node.pem", "node.key"}
            assert not (tmp / n / "cluster.new").exists()


def test_a_secret_that_was_there_before_is_kept_by_init_and_replaced_by_join():
    with nodes("a", "b") as tmp:
        for node, digit in (("a", "1"), ("b", "2")):
            (tmp / node / "cluster").mkdir(parents=True)
            secret = tmp / node / "cluster/secret"
            secret.write_text(digit * 64 + "\n")
            secret.chmod(0o600)
        run(tmp, "b", "join", stdin=three(tmp).encode())
        assert files(tmp, "a")["secret"] == files(tmp, "b")["secret"] == "1" * 64 + "\n"


def test_a_secret_elsewhere_is_written_there():
    with nodes("a", "b") as tmp:
        config = tmp / "b.conf"
        config.write_text(config.read_text() + 'cluster { secret_file = "elsewhere" }\n')
        code, out, err = run(tmp, "b", "join", stdin=three(tmp).encode())
        assert code == 0, err
        assert set(files(tmp, "b")) == {"ca.pem", "node.pem", "node.key"}
        assert (tmp / "b/elsewhere").read_text() == files(tmp, "a")["secret"]


def test_what_is_refused_changes_nothing():
    with nodes("a", "b", "c", "d") as tmp:
        token = three(tmp)
        run(tmp, "b", "join", stdin=token.encode())
        run(tmp, "d", "init", "epsom")
        of_b = run(tmp, "d", "join-token", "b")[1]
        of_a = run(tmp, "d", "join-token", "a")[1]
        before = {n: files(tmp, n) for n in "abd"}
        text = base64.b64decode(token)
        broken = [b"", b"\n", b"hello\n", token[:1000].encode(), token.encode()[4:],
                  base64.b64encode(text[:-2]), base64.b64encode(text + b"x"), b"A" * 70000,
                  base64.b64encode(text.replace(b"pemberley join 1", b"pemberley join 9"))]
        rows = [
            # node, arguments, standard input, exit code, what the message has
            ("a", ("init", "epsom"), b"", 5, 'in cluster "derby" already'),
            ("b", ("init", "derby"), b"", 5, "was made on another node"),
            ("a", ("init",), b"", 2, "name of a cluster"),
            ("a", ("init", "Derby"), b"", 2, "a-z"),
            ("a", ("init", "x" * 33), b"", 2, "1 to 32"),
            ("a", ("join-token",), b"", 2, "name of a node"),
            ("a", ("join-token", "b.example"), b"", 2, "name of a node"),
            ("a", ("join-token", "a"), b"", 5, "is this node"),
            ("b", ("join-token", "c"), b"", 4, "is not here"),
            ("c", ("join-token", "b"), b"", 4, "in no cluster"),
            ("a", ("join", "token"), b"", 2, "no argument"),
            ("c", ("join",), token.encode(), 5, 'for node "b", and this is node "c"'),
            ("b", ("join",), of_b.encode(), 5, 'in another cluster "derby"'),
            ("a", ("join",), of_a.encode(), 5, 'has the key of cluster "derby"'),
            *(("b", ("join",), b, 2, "no token") for b in broken),
        ]
        for node, args, stdin, code, what in rows:
            got, out, err = run(tmp, node, *args, stdin=stdin)
            assert got == code and what in err and not out, (node, args, got, out, err)
        assert before == {n: files(tmp, n) for n in "abd"}
        assert not (tmp / "c" / "cluster").exists()


def test_a_token_whose_parts_do_not_belong_together_is_refused():
    with nodes("a", "b") as tmp:
        pems = re.compile(rb"-----BEGIN.*?-----END [A-Z ]+-----\n", re.S)
        one, two = (base64.b64decode(t) for t in (three(tmp), run(tmp, "a", "join-token", "b")[1]))
        key = pems.findall(two)[2]
        mixed = one.replace(pems.findall(one)[2], key)
        code, out, err = run(tmp, "b", "join", stdin=base64.b64encode(mixed))
        assert code == 1 and "does not belong" in err, err
        ca = pems.findall(one)[0]
        mixed = one.replace(ca, pems.findall(one)[1])
        assert run(tmp, "b", "join", stdin=base64.b64encode(mixed))[0] == 1
        assert not (tmp / "b" / "cluster").exists()


def test_one_at_a_time_and_leftovers_are_no_hindrance():
    with nodes("a") as tmp:
        three(tmp)
        before = files(tmp, "a")
        (tmp / "a/cluster.new").mkdir()
        (tmp / "a/cluster.new/node.key").write_text("of a writer that was killed")
        fd = os.open(tmp / "a", os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        code, out, err = run(tmp, "a", "init", "derby")
        assert code == 1 and "another cluster command" in err and files(tmp, "a") == before, err
        os.close(fd)
        assert run(tmp, "a", "init", "derby")[0] == 0
        assert not (tmp / "a/cluster.new").exists()
        assert files(tmp, "a")["ca.key"] == before["ca.key"]


def test_a_full_disk_leaves_what_was_there():
    with nodes("a") as tmp:
        three(tmp)
        before = files(tmp, "a")

        def no_bytes():
            import resource
            import signal
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))

        code, out, err = run(tmp, "a", "init", "derby", preexec_fn=no_bytes)
        assert code == 1 and "cluster.new" in err, (code, out, err)
        assert files(tmp, "a") == before and not (tmp / "a/cluster.new").exists()

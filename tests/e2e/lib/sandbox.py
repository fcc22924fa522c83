#!/usr/bin/python3
"""Runs a command under a seccomp filter, as container engines do: `--forbid CALL,CALL` refuses these
with EPERM and allows the rest; `--profile FILE` loads a profile in the engines' JSON format (a list of
what is allowed, arguments included). `sandbox.py --forbid mount -- COMMAND…`"""

import json
import os
import sys

import seccomp

OPERATORS = {"SCMP_CMP_EQ": seccomp.EQ, "SCMP_CMP_NE": seccomp.NE,
             "SCMP_CMP_MASKED_EQ": seccomp.MASKED_EQ}


def action_of(name, number):
    return seccomp.ALLOW if name == "SCMP_ACT_ALLOW" else seccomp.ERRNO(number)


def argument(a):
    if a["op"] == "SCMP_CMP_MASKED_EQ":
        return seccomp.Arg(a["index"], seccomp.MASKED_EQ, a["value"], a.get("valueTwo", 0))
    return seccomp.Arg(a["index"], OPERATORS[a["op"]], a["value"])


def from_profile(path):
    with open(path) as f:
        profile = json.load(f)
    default = profile.get("defaultErrnoRet", 1)
    rules = seccomp.SyscallFilter(action_of(profile["defaultAction"], default))
    for entry in profile["syscalls"]:
        for name in entry["names"]:
            rules.add_rule_exactly(action_of(entry["action"], entry.get("errnoRet", default)), name,
                                   *map(argument, entry.get("args", [])))
    return rules


def all_but(names):
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in names:
        rules.add_rule(seccomp.ERRNO(1), name)
    return rules


def main():
    how, what, dashes, *command = sys.argv[1:]
    if how not in ("--forbid", "--profile") or dashes != "--" or not command:
        sys.exit("sandbox.py --forbid CALL,CALL | --profile FILE -- COMMAND…")
    rules = from_profile(what) if how == "--profile" else all_but(what.split(","))
    rules.load()
    os.execv(command[0], command)


main()

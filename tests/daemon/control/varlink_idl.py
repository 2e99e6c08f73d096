"""Varlink's interface language, as far as pcipt uses it: a reader, and a check of JSON values against types.

Source: varlink.org/Interface-Definition.
"""

import re

TOKEN = re.compile(r"\s+|#[^\n]*|(->|\[\]|\[string\]|[?(),:]|[A-Za-z_][A-Za-z0-9_.]*)")
PLAIN = {"bool": bool, "int": int, "float": float, "string": str, "object": object}


class Interface:
    """`types`, `methods` (name: parameters, reply) and `errors` by name; a struct is {field: type}."""

    def __init__(self, text):
        self._tokens = []
        at = 0
        while at < len(text):
            match = TOKEN.match(text, at)
            assert match, f"no token at {text[at : at + 30]!r}"
            self._tokens += [match[1]] if match[1] else []
            at = match.end()
        self._tokens.reverse()
        self._take("interface")
        self.name = self._next()
        self.types, self.methods, self.errors = {}, {}, {}
        while self._tokens:
            kind, name = self._next(), self._next()
            if kind == "method":
                parameters = self._struct()
                self._take("->")
                self.methods[name] = (parameters, self._struct())
            else:
                {"type": self.types, "error": self.errors}[kind][name] = self._struct()

    def complaints(self, kind, value, where=""):
        """Say where a value does not fit its type: members not declared, missing, or of another type."""
        if isinstance(kind, dict):
            if not isinstance(value, dict):
                return [f"{where} is no object"]
            unknown = [f"{where}.{name} is not declared" for name in value.keys() - kind.keys()]
            return unknown + [
                complaint
                for name, inner in kind.items()
                for complaint in self.complaints(inner, value.get(name), f"{where}.{name}")
            ]
        if kind[0] == "?":
            return [] if value is None else self.complaints(kind[1], value, where)
        if kind[0] == "[]":
            if not isinstance(value, list):
                return [f"{where} is no list"]
            return [
                c for n, each in enumerate(value) for c in self.complaints(kind[1], each, f"{where}[{n}]")
            ]
        if kind in self.types:
            return self.complaints(self.types[kind], value, where)
        fits = isinstance(value, PLAIN[kind]) and value is not None
        return [] if fits and (kind == "bool" or not isinstance(value, bool)) else [f"{where} is {value!r}"]

    def _next(self):
        return self._tokens.pop()

    def _take(self, token):
        found = self._next()
        assert found == token, f"{found!r} stands where {token!r} should"

    def _struct(self):
        self._take("(")
        fields = {}
        while self._tokens[-1] != ")":
            name = self._next()
            self._take(":")
            fields[name] = self._type()
            if self._tokens[-1] == ",":
                self._next()
        self._next()
        return fields

    def _type(self):
        token = self._tokens[-1]
        if token in {"?", "[]"}:
            return (self._next(), self._type())
        return self._struct() if token == "(" else self._next()

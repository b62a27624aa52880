"""How this site takes a scope from a name: also the default algorithm of its type, by its name."""


def extract(did, scopes):
    return "site", did


scope = extract

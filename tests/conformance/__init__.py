"""What a correct gateway does with the strange 1 %, seen from outside.

Each test carries the id of its case (`FR-02`) in a `case` marker or in its parameter's id. Tests that use the `wire`
fixture ask nothing but "proxy everything to one upstream" and also run against nginx, HAProxy and Caddy
(`pytest tests/conformance --peer nginx`).
"""

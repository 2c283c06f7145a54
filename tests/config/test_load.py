import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devhost_server.config import ConfigError, Settings, Sources, load, load_admin
from devhost_server.config.models import RouteSection
from devhost_server.config.schema import known_paths
from devhost_server.config.unbuilt import UNBUILT
from tests.config.support import loaded, problem, problems, sources, write

RICH = """
    server:
      bind: [127.0.0.1:1, "[::1]:1", unix:/run/x.sock]
      workers: 3
      trusted_proxies: [10.0.0.0/8, "::1", 192.168.1.1]
      limits: {head: 32KiB, body: 10MB}
      watch: false
      state_dir: null
    admin: {bind: 0.0.0.0:2, token: abc}
    log: {level: debug, access: null}
    domain: Team.Example.
    echo: {}
    defaults:
      timeouts: {connect: 250ms, response: 2m}
      pool: {max_connections: 7}
      pass_host: false
    upstreams:
      api:
        targets: ["HTTP://127.0.0.1:80/", {url: "https://api.example:8443/base/", weight: 2}, unix:///run/a.sock, 8000]
        balance: round_robin
        timeouts: {connect: 1s}
        pass_host: true
    routes:
      web: 3000
      old: http://old.example/x
      both: [3001, 3002]
      api:
        host: [api.example, "*.API.example", "**.x", bücher.example]
        path: /v1/%C3%A9/
        methods: [get, POST, GET]
        headers: {X-Team: blue}
        upstream: api
        strip_prefix: true
        owner: team-api
        policies: []
      ping: {host: "*", path: /ping, respond: {status: 404, body: pong, headers: {X-A: b}}}
"""


def test_everything_is_resolved(tmp_path):
    got = loaded(tmp_path, RICH).settings
    assert got.server.trusted_proxies == ("10.0.0.0/8", "::1/128", "192.168.1.1/32")
    assert got.server.limits.head == 32768
    assert got.server.limits.headers == 128
    assert got.domain == "team.example"
    assert got.echo is not None
    assert got.echo.bind == "127.0.0.1:7779"
    api = got.upstreams["api"]
    assert [(target.url, target.weight) for target in api.targets] == [
        ("http://127.0.0.1", 1),
        ("https://api.example:8443/base", 2),
        ("unix:/run/a.sock", 1),
        ("http://127.0.0.1:8000", 1),
    ]
    assert (api.timeouts.connect, api.timeouts.response, api.timeouts.read_idle) == (1.0, 120.0, 60.0)
    assert (api.pool.max_connections, api.pool.max_idle, api.pass_host) == (7, 32, True)
    assert set(got.upstreams) == {"api", "web", "old", "both"}
    assert not got.upstreams["web"].pass_host
    assert [target.url for target in got.upstreams["both"].targets] == [
        "http://127.0.0.1:3001",
        "http://127.0.0.1:3002",
    ]
    assert got.routes["web"].hosts == ("web.team.example",)
    assert got.routes["web"].upstream == "web"
    route = got.routes["api"]
    assert route.hosts == ("api.example", "*.api.example", "**.x", "xn--bcher-kva.example")
    assert (route.path, route.methods, route.headers) == ("/v1/é", ("GET", "POST"), {"x-team": "blue"})
    assert (route.upstream, route.strip_prefix, route.owner) == ("api", True, "team-api")
    ping = got.routes["ping"]
    assert ping.upstream is None
    assert ping.respond is not None
    assert (ping.respond.status, ping.respond.body, ping.respond.headers) == (404, "pong", {"x-a": "b"})


def test_settings_survive_their_json(tmp_path):
    made = loaded(tmp_path, RICH).settings
    assert Settings.model_validate(made.model_dump(mode="json")) == made
    assert Settings.model_validate(json.loads(json.dumps(made.model_dump(mode="json")))) == made
    assert Settings.model_validate_json(made.model_dump_json()) == made


def test_a_decoded_path_is_not_decoded_again(tmp_path):
    made = loaded(tmp_path, "routes: {a: {path: /a%2541, to: 1}}").settings
    assert made.routes["a"].path == "/a%41"
    assert Settings.model_validate(made.model_dump(mode="json")) == made


def test_settings_and_problems_do_not_show_the_token(tmp_path):
    made = loaded(tmp_path, RICH).settings
    assert "abc" not in repr(made)


def test_nothing_at_all_is_a_configuration(tmp_path):
    got = loaded(tmp_path, "").settings
    assert got.server.bind == ("127.0.0.1:7777",)
    assert not got.routes
    assert got.echo is None


def test_null_removes(tmp_path):
    write(tmp_path, "routes: {web: 1, api: {to: 2, owner: me, headers: {x-a: b, x-c: d}}}\nadmin: {bind: null}\n")
    write(
        tmp_path,
        """
        server: {workers: null, limits: null}
        log: null
        routes: {web: null, api: {owner: null, headers: {x-a: null}}}
        upstreams: null
        domain: null
        """,
        "devhost.local.yaml",
    )
    got = load(sources(tmp_path)).settings
    assert set(got.routes) == {"api"}
    assert got.routes["api"].owner is None
    assert got.routes["api"].headers == {"x-c": "d"}
    assert (got.server.workers, got.server.limits.head, got.domain) == ("auto", 65536, "localhost")
    assert got.admin.bind is None


def test_null_does_not_hide_an_unknown_key(tmp_path):
    assert "server.wrokers: unknown key" in problem(tmp_path, "server: {wrokers: null}")


def test_expanded_scalars_are_typed_where_numbers_are_wanted_and_text_where_text_is(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "token").write_text("0123\n")
    environ = {"N": "3", "PORT": "3000", "YES": "true", "NUMBER": "123", "NOTHING": "null", "EMPTY": "", "SIZE": "1KiB"}
    got = loaded(
        tmp_path,
        """
        server: {workers: "${N}", limits: {body: "${SIZE}", head: "${SIZE}"}}
        admin: {token: "${file:token}", bind: "${NOTHING}"}
        defaults: {pass_host: "${YES}", pool: {max_connections: "${UNSET:-12}"}}
        routes:
          web: ${PORT}
          two: {to: "http://127.0.0.1:${PORT}", owner: "${NUMBER}", headers: {x-a: "${YES}", x-b: "${EMPTY}"}}
          text: {host: a.b, respond: {status: "${UNSET:-404}", body: "${NUMBER}"}}
        """,
        environ=environ,
    ).settings
    assert got.server.workers == 3
    assert got.server.limits.body == 1024
    assert got.admin.token == "0123"
    assert got.admin.bind is None
    assert got.upstreams["web"].targets[0].url == "http://127.0.0.1:3000"
    assert got.upstreams["web"].pool.max_connections == 12
    assert got.routes["two"].owner == "123"
    assert got.routes["two"].headers == {"x-a": "true", "x-b": ""}
    assert got.routes["text"].respond is not None
    assert (got.routes["text"].respond.status, got.routes["text"].respond.body) == (404, "123")


def test_a_value_cannot_add_structure(tmp_path):
    text = "routes: {a: {to: 1, owner: '${X}'}}"
    for value in ("{admin: [1, 2]}", "a: b", "[x]", "${Y}", "*a", "!x"):
        assert loaded(tmp_path, text, environ={"X": value}).settings.routes["a"].owner == value
    assert "is not a line of text" in problem(tmp_path, text, environ={"X": "a\nadmin: null"})


def test_an_empty_secret_does_not_switch_the_token_off(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "token").write_text("\n")
    for text, environ in (("${file:token}", {}), ("${T}", {"T": ""})):
        assert "a token is at least one" in problem(tmp_path, f"admin: {{token: '{text}'}}", environ=environ)


def test_what_a_higher_layer_replaces_need_not_be_set(tmp_path):
    assert loaded(tmp_path, "domain: ${NOPE}", sets=("domain=x",)).settings.domain == "x"


def test_scalars_put_together_are_typed_like_others(tmp_path):
    got = loaded(
        tmp_path,
        """
        server: {workers: "${EMPTY}${A}", limits: {connections: "${A}${B}", headers: "3${B}"}}
        defaults: {pass_host: "fal${SE}"}
        routes:
          web: ${A}${B}
          two: {to: "80${A}0", path: "/${A}", methods: "${A}${B}", owner: "${A}.${B}0"}
          three: {to: 1, headers: {a: "${A}${B}", b: "0${A}", c: "nu${LL}", d: "${EMPTY}~", e: "${A}.50", f: "tr${UE}"}}
          ping: {respond: {status: "2${A}4", body: "${A}${B}"}}
        """,
        environ={"A": "1", "B": "2", "SE": "se", "LL": "ll", "EMPTY": "", "UE": "ue"},
    ).settings
    assert got.server.workers == 1
    assert (got.server.limits.connections, got.server.limits.headers) == (12, 32)
    assert got.upstreams["web"].pass_host is False
    assert got.upstreams["web"].targets[0].url == "http://127.0.0.1:12"
    assert got.upstreams["two"].targets[0].url == "http://127.0.0.1:8010"
    assert (got.routes["two"].path, got.routes["two"].methods, got.routes["two"].owner) == ("/1", ("12",), "1.20")
    assert got.routes["three"].headers == {"a": "12", "b": "01", "c": "null", "d": "~", "e": "1.50", "f": "true"}
    fixed = got.routes["ping"].respond
    assert fixed is not None
    assert (fixed.status, fixed.body) == (214, "12")


def test_what_holds_no_expression_is_not_typed(tmp_path):
    assert "'1$' is not a whole number" in problem(tmp_path, "server: {limits: {headers: '1$$'}}")
    assert "'12' is not a whole number" in problem(tmp_path, "server: {limits: {headers: '12'}}")


def test_variables_and_sets_are_expanded_too(tmp_path):
    got = loaded(
        tmp_path, "", sets=("domain=${D}.x",), environ={"D": "d", "DEVHOST__LOG__LEVEL": "${L:-debug}"}
    ).settings
    assert (got.domain, got.log.level) == ("d.x", "debug")


def test_whom_to_believe_and_whom_to_tell(tmp_path):
    got = loaded(
        tmp_path,
        """
        server: {trusted_headers: [X-Forwarded-Proto, Remote-User], paths: strict}
        routes:
          a: {to: 1, path: /a, slash: redirect}
          b: {to: 1, details: false}
          c: {to: 1, details: "10.0.0.0/8, ::1"}
          d: {to: 1, details: [192.168.1.1]}
        """,
    ).settings
    assert got.server.trusted_headers == ("X-Forwarded-Proto", "Remote-User")
    assert got.server.paths == "strict"
    assert (got.routes["a"].slash, got.routes["b"].slash) == ("redirect", None)
    assert [got.routes[name].details for name in "abcd"] == [
        True, False, ("10.0.0.0/8", "::1/128"), ("192.168.1.1/32",),
    ]  # fmt: skip
    assert Settings.model_validate(got.model_dump(mode="json")) == got


EVERYTHING_WRONG = """\
server:
  wrokers: 4
  workers: many
  limits: {head: 64K, headers: '128', connections: 0}
  trusted_proxies: [10.0.0.1/8]
log: {level: wraning}
admin: {bind: 0.0.0.0:7778}
bind: 0.0.0.0:7777
domain: ${NOPE}
upstreams:
  api: {targets: [localhost:3], balance: least_requests, hold: {max: 1s}}
  Web: {targets: []}
routes:
  a: {host: x.localhost, to: 1}
  b: {host: X.localhost., to: 2}
  c: {upstream: apo}
  d: {}
  e: {to: 1, respond: {}, owner: '${file:/nope}'}
"""


def test_all_problems_are_found_at_once_each_at_its_place(tmp_path):
    found = problems(tmp_path, EVERYTHING_WRONG, sets=("nope=1",), environ={"DEVHOST_MAX_CONNS": "x"})
    assert [(each.file.removeprefix("config/"), each.line, each.column, each.key) for each in found] == [
        ("devhost.yaml", 2, 3, "server.wrokers"),
        ("devhost.yaml", 3, 12, "server.workers"),
        ("devhost.yaml", 4, 18, "server.limits.head"),
        ("devhost.yaml", 4, 32, "server.limits.headers"),
        ("devhost.yaml", 4, 52, "server.limits.connections"),
        ("devhost.yaml", 5, 21, "server.trusted_proxies.0"),
        ("devhost.yaml", 6, 14, "log.level"),
        ("devhost.yaml", 7, 15, "admin.bind"),
        ("devhost.yaml", 8, 1, "bind"),
        ("devhost.yaml", 9, 9, "domain"),
        ("devhost.yaml", 11, 19, "upstreams.api.targets.0"),
        ("devhost.yaml", 11, 42, "upstreams.api.balance"),
        ("devhost.yaml", 11, 58, "upstreams.api.hold"),
        ("devhost.yaml", 12, 3, "upstreams.Web"),
        ("devhost.yaml", 12, 18, "upstreams.Web.targets"),
        ("devhost.yaml", 15, 3, "routes.b"),
        ("devhost.yaml", 16, 17, "routes.c.upstream"),
        ("devhost.yaml", 17, 3, "routes.d"),
        ("devhost.yaml", 18, 34, "routes.e.owner"),
        ("DEVHOST_MAX_CONNS", None, None, ""),
        ("--set", None, None, "nope"),
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("server: {wrokers: 1}", "1:10: server.wrokers: unknown key; allowed: bind, workers,"),
        ("server: {wrokers: 1}", "(did you mean workers?)"),
        ("bind: 127.0.0.1:1", "(did you mean server.bind or admin.bind?)"),
        ("bind: x", "(did you mean server.bind or admin.bind? The value is not one for it)"),
        ("routes: {a: {to: {url: 'http://a', wieght: 1}}}", "routes.a.to.wieght: unknown key"),
        ("upstreams: {a: {targets: [{url: 'http://a', x: 1}]}}", "allowed: url, weight"),
        ("server: {workers: 0}", "0 is not a number of workers: 1 to 512, or auto, is allowed"),
        ("server: {workers: true}", "true is not a number of workers"),
        ("server: {bind: 7777}", "(did you mean '127.0.0.1:7777'?)"),
        (
            "server: {bind: true}",
            "true is not an address: write host:port such as 127.0.0.1:7777, [::1]:port or unix:/path",
        ),
        ("server: {bind: []}", "the list is empty; at least one is needed"),
        ("server: {bind: {a: 1}}", "a mapping is not text"),
        ("server: []", "a list is not a mapping; allowed keys: bind, workers,"),
        ("routes: [{a: 1}]", "routes: a list is not a mapping of names"),
        ("server: {limits: 3}", "3 is not a mapping"),
        ("server: {limits: {headers: 1.5}}", "1.5 is not a whole number"),
        ("server: {limits: {headers: 10001}}", "10001 is out of bounds: at most 10000 is allowed"),
        ("server: {timeouts: {head: 0}}", "0 is out of bounds: more than 0 is allowed"),
        ("server: {trusted_proxies: 10.0.0.1/8}", "(did you mean '10.0.0.0/8'?)"),
        (
            "server: {trusted_headers: X-Forwarded-For}",
            "'X-Forwarded-For' is believed from every trusted proxy: remove it",
        ),
        ("server: {trusted_headers: [x-real-ip]}", "'x-real-ip' is written by the gateway itself"),
        ("server: {trusted_headers: [X-Devhost-Replay]}", "is written by the gateway itself"),
        (
            "server: {trusted_headers: [X_Forwarded_User]}",
            "is not a field that only proxies may send",
        ),
        ("server: {trusted_headers: [Cookie]}", "all others pass from everybody"),
        ("server: {paths: strikt}", "'strikt' is not allowed; allowed: pass, strict (did you mean strict?)"),
        ("routes: {a: {to: 1, details: maybe}}", "'maybe' is not a network"),
        ("routes: {a: {to: 1, details: 3}}", "3 is not allowed; allowed: true, false, or a list of CIDRs"),
        ("routes: {a: {to: 1, details: [10.0.0.1/8]}}", "(did you mean '10.0.0.0/8'?)"),
        ("routes: {a: {to: 1, path: /a, slash: add}}", "'add' is not allowed; allowed: redirect"),
        ("routes: {a: {to: 1, slash: redirect}}", "routes.a.slash: `slash` is about a `path`"),
        ("routes: {a: {to: 1, path: '/a;b'}}", "what follows ; are parameters, which routes do not compare"),
        ("log: {level: wraning}", "allowed: debug, info, warning, error (did you mean warning?)"),
        ("log: {access: sdtout}", "write stdout, a path with a /, or null"),
        (
            "log: {access: false}",
            "false is not a place for the access log: write stdout, a path with a /, or null for no",
        ),
        ("log: {access: 7}", "7 is not a place for the access log"),
        ("defaults: {pass_host: no}", "'no' is not true or false"),
        ("defaults: {buffer_body: 0}", "0 is out of bounds: at least 1 is allowed"),
        ("routes: {a: {to: 1, buffer_body: 65MiB}}", "routes.a.buffer_body: '65MiB' is out of bounds: at most"),
        ("upstreams: {a: {targets: 1, buffer_body: much}}", "'much' is not a size such as 64KiB"),
        ("routes: {a: {respond: {}, buffer_body: 1MiB}}", "`buffer_body` is about an upstream"),
        ("defaults: {balance: hash}", "'hash' is not built in this version; allowed: round_robin"),
        ("defaults: {balance: rr}", "'rr' is not allowed; allowed: round_robin"),
        ("domain: a b", "'a b' is not a host name"),
        ("routes: {a: {to: 1, owner: 5}}", "5 is not text: put it in quotes"),
        ("domain: 5", "5 is not text"),
        ("admin: {token: 'a b'}", "a token is at least one visible ASCII character"),
        ("admin: {tokens: {alice: 'a b'}}", "a token is at least one visible ASCII character"),
        ("admin: {tokens: {alice: same-1, bob: same-1}}", "alice and bob have the same token"),
        ("admin: {token: same-1, tokens: {alice: same-1}}", "one of these is `token` itself"),
        ("server: {user: 'a b'}", "is not a user: NAME or NAME:GROUP is allowed"),
        ("server: {user: ':group'}", "is not a user: NAME or NAME:GROUP is allowed"),
        ("server: {user: true}", "is not a user: NAME or NAME:GROUP is allowed"),
        ("admin: {hosts: ['*.example']}", "is not a host name"),
        ("admin: {bind: 0.0.0.0:1, tokens: {alice: null}}", "can be reached from other machines"),
        ("upstreams: {a: {}}", "upstreams.a.targets: is required and not given"),
        ("upstreams: {a: {targets: [1, 1]}}", "'http://127.0.0.1:1' is a target twice"),
        ("upstreams: {a: {targets: [{url: 'http://a', weight: 0}]}}", "0 is out of bounds: at least 1 is allowed"),
        ("upstreams: {A b: {targets: 1}}", "(did you mean 'a-b'?)"),
        ("upstreams: {a_: {targets: 1}}", "'a_' is not a name"),
        ("routes: {a: localhost:3000}", "(did you mean 'http://localhost:3000'?)"),
        ("routes: {a: 0}", "0 is not a port: 1 to 65535 is allowed"),
        ("routes: {a: true}", "true is not text"),
        ("routes: {a: {to: 1, path: v1}}", "(did you mean '/v1'?)"),
        ("routes: {a: {to: 1, path: /a?b}}", "no query"),
        ("routes: {a: {to: 1, path: /a/../b}}", "is not a path"),
        ("routes: {a: {to: 1, path: /%2e%2e/b}}", "is not a path"),
        ("routes: {a: {to: 1, path: /%ff}}", "not UTF-8"),
        ("routes: {a: {to: 1, host: 'a:80'}}", "(did you mean 'a'?)"),
        ("routes: {a: {to: 1, host: '**'}}", "'**' is not a host: write a name"),
        ("routes: {a: {to: 1, host: '*.'}}", "'*.' is not a host: write a name"),
        ("routes: {a: {to: 1, host: '*.a b'}}", "'*.a b' is not a host name"),
        ("routes: {a: {to: 1, methods: 'G T'}}", "'G T' is not a request method"),
        ("routes: {a: {to: 1, headers: {'x y': a}}}", "'x y' is not a header name"),
        ("routes: {a: {to: 1, headers: {x: 5}}}", "5 is not text: put it in quotes"),
        ("routes: {a: {owner: me}}", "give it `to`, `upstream` or `respond`"),
        ("routes: {a: {to: 1, upstream: b}}", "this one has to and upstream; set all but one to null"),
        ("routes: {a: {respond: {status: 199}}}", "199 is out of bounds: at least 200 is allowed"),
        ("routes: {a: {respond: {status: 204, body: x}}}", "routes.a.respond.body: a 204 answer has no body"),
        ("routes: {a: {respond: {headers: {Content-Length: '1'}}}}", "'content-length', which the gateway sets itself"),
        ("routes: {a: {respond: {headers: {Content-Type: x}}}}", "write it as `content_type`"),
        ('routes: {a: {respond: {headers: {x: "a\\r\\nb"}}}}', "is not a header value"),
        ('routes: {a: {respond: {content_type: "a\\nb"}}}', "is not a header value"),
        ("routes: {a: {upstream: b}}", "there is no upstream 'b'; `upstreams` has none"),
        ("upstreams: {api: {targets: 1}}\nroutes: {a: {upstream: apo}}", "allowed: api (did you mean api?)"),
        ("upstreams: {a: {targets: 1}}\nroutes: {a: 1}", "upstreams.a exists already: write `upstream: a` instead"),
        ("domain: " + "x." * 110 + "y\nroutes: {" + "a" * 60 + ": 1}", "give it a `host`"),
        ("server: {bind: [127.0.0.1:7778]}", "127.0.0.1:7778 and server.bind (127.0.0.1:7778) cannot be listened on"),
        ("server: {bind: ['[::]:1', 0.0.0.0:1]}", "cannot be listened on at once"),
        ("echo: {bind: 127.0.0.1:7777}", "echo.bind: 127.0.0.1:7777 and server.bind"),
    ],
)
def test_sentences(tmp_path, text, line):
    assert line in problem(tmp_path, text)


@pytest.mark.parametrize("url", ["http://user:hunter2@h/", "http://hunter2@h", "https://a:hunter2@[::1"])
def test_passwords_in_urls_are_refused_and_not_repeated(tmp_path, url):
    text = problem(tmp_path, f"routes: {{a: '{url}'}}")
    assert "user or password is not allowed" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    "url",
    [
        *("http://", "http://:80", "http://h:0", "http://h:65536", "http://h:", "http://h:x", "http://[::1"),
        *("ftp://h", "ws://h", "h", "//h", "unix:x", "https+unix://x", "http://a_b..c"),
        *("http://h?x", "http://h/#x", "http://h/a b", "http://h/\t", "http://h/../x", "http://h/é", "http://h/\u2028"),
    ],
)
def test_what_is_no_target_is_refused(tmp_path, url):
    assert "routes.a: " in problem(tmp_path, f"routes: {{a: {json.dumps(url)}}}")


def test_parts_of_secrets_do_not_get_into_sentences_either(tmp_path):
    (tmp_path / "config").mkdir()
    for name, content in {"host": "Hunter!2", "net": "10.9.8.7/8", "name": "Hunter 2"}.items():
        (tmp_path / "config" / name).write_text(content)
    found = problems(
        tmp_path,
        """
        server: {trusted_proxies: "${file:net}"}
        routes:
          a: {to: "http://${file:host}/"}
          b: {to: 1, host: "x.${file:name}:80"}
          c: {to: 1, path: "${file:name}"}
        """,
    )
    assert len(found) == 4
    for each in found:
        assert "unter" not in str(each)
        assert "10." not in each.message.partition("such as")[0] + each.message.partition("did you mean")[2]


def test_secrets_do_not_get_into_sentences(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "secret").write_text("hunter2 and more")
    (tmp_path / "config" / "short").write_text("@")
    text = """
        domain: ${file:secret}
        log: {level: "${file:short}"}
        server: {bind: "${file:secret}"}
        routes: {a: {to: "http://${file:secret}/"}, b: {to: 1, headers: {x: "${file:secret}\\n"}}}
        admin: {token: [hunter2]}
    """
    found = problems(tmp_path, text)
    assert len(found) == 6
    printed = "\n".join(map(str, found))
    assert "hunter2" not in printed
    assert "'@'" not in printed
    assert "********" in printed


def test_ties_between_routes(tmp_path):
    text = """\
        routes:
          a: {host: x.y, path: /v1, to: 1}
          b: {host: [z.y, X.Y.], path: /v1/, to: 2}
          c: {host: x.y, path: /v1, methods: [GET], to: 3}
          d: {host: x.y, path: /v1, methods: [POST], to: 4}
          e: {host: x.y, path: /v1, methods: [POST], headers: {x: "1"}, to: 5}
          f: {host: x.y, path: /v1, headers: {x: "1"}, methods: post, to: 6}
        """
    found = problems(tmp_path, text)
    assert [(each.key, each.line) for each in found] == [("routes.b", 3), ("routes.f", 7)]
    assert "a tie with the route a (config/devhost.yaml:2:3)" in found[0].message
    assert found[0].message.endswith(
        ": both answer host x.y path /v1 and neither is more specific; set them apart by host, path, methods or headers"
    )


def test_a_tie_of_many_routes_is_one_problem(tmp_path):
    routes = "\n".join(f"  r{at}: {{host: [x.y, x.z], headers: {{x-{at}: a}}, to: 1}}" for at in range(400))
    (found,) = problems(tmp_path, f"routes:\n{routes}\n  other: {{host: x.y, to: 2}}")
    assert found.key == "routes.r1"
    assert found.message == (
        "a tie with the routes r0 (config/devhost.yaml:2:3), r2 (config/devhost.yaml:4:3), "
        "r3 (config/devhost.yaml:5:3), r4 (config/devhost.yaml:6:3) and 395 more: all answer host x.y (and 1 more) "
        "path / and none is more specific than another; set them apart by host, path, methods or headers"
    )


def test_a_tie_through_a_computed_host(tmp_path):
    assert "a tie with the route web" in problem(tmp_path, "routes: {web: 1, other: {host: web.localhost, to: 2}}")


def test_what_follows_only_from_a_broken_file_is_not_said(tmp_path):
    write(
        tmp_path,
        "routes: {a: {upstream: api}, b: {owner: me}}\nadmin: {bind: 0.0.0.0:1}\nupstreams: {x: {}}\nlog: {x: 1}",
    )
    write(tmp_path, "upstreams: {api: [", "devhost.local.yaml")
    with pytest.raises(ConfigError) as caught:
        load(sources(tmp_path))
    assert [(each.file, each.key) for each in caught.value.problems] == [
        ("config/devhost.yaml", "log.x"),
        ("config/devhost.local.yaml", ""),
    ]


def test_what_follows_only_from_an_unset_variable_is_not_said(tmp_path):
    text = """
        domain: ${A}
        routes: {web: 1, x: {host: web.localhost, to: 2}, y: "${B}"}
        server: {bind: ["${C}"], limits: "${D}"}
    """
    assert [each.key for each in problems(tmp_path, text)] == [
        "domain",
        "routes.y",
        "server.bind.0",
        "server.limits",
    ]


class TestUnbuilt:
    @pytest.mark.parametrize("feature", UNBUILT, ids=lambda feature: ".".join(feature.path))
    def test_it_is_refused_with_a_sentence(self, tmp_path, feature):
        assert self.wrong(tmp_path, feature.path, "[x]").endswith(
            f"{feature.what} not built in this version, so it would have no effect: remove the key"
        )

    @pytest.mark.parametrize("feature", UNBUILT, ids=lambda feature: ".".join(feature.path))
    def test_what_asks_for_nothing_is_allowed(self, tmp_path, feature):
        for value in (None, feature.harmless):
            loaded(tmp_path, self.document(feature.path, json.dumps(value)))

    def wrong(self, tmp_path, path, value):
        return problem(tmp_path, self.document(path, value))

    def document(self, path, value):
        """A file in which the key at `path` stands, and around it what has to be there."""
        rest = {"upstreams": "targets: 1, ", "routes": "to: 1, "}.get(path[0], "")
        text = value
        for depth in reversed(range(len(path))):
            key = "name" if path[depth] == "*" else path[depth]
            text = f"{{{rest if depth == 2 else ''}{key}: {text}}}"
        return text


class TestAdminAlone:
    def test_it_is_read_beside_a_broken_configuration(self, tmp_path):
        write(tmp_path, "admin: {bind: 127.0.0.1:9, token: '${T}'}\nserver: {nope: 1}\ndomain: ${NOPE}")
        with pytest.raises(ConfigError):
            load(sources(tmp_path, environ={"T": "secret"}))
        options = load_admin(sources(tmp_path, environ={"T": "secret"}))
        assert (options.bind, options.token) == ("127.0.0.1:9", "secret")

    def test_its_own_problems_are_said(self, tmp_path):
        write(tmp_path, "admin: {bind: 0.0.0.0:9}\nserver: {nope: 1}")
        with pytest.raises(ConfigError) as caught:
            load_admin(sources(tmp_path))
        assert [each.key for each in caught.value.problems] == ["admin.bind"]

    def test_without_one_it_is_the_default(self, tmp_path):
        write(tmp_path, "domain: x")
        assert load_admin(sources(tmp_path)).bind == "127.0.0.1:7778"


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["${X}", "1s", "*"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PATHS = st.sampled_from([".".join(map(str, path)) for path in known_paths()]) | st.sampled_from(
    [f"upstreams.a{rest}" for rest in ("", ".targets", ".timeouts", ".pool.wait", ".hold", ".x")]
    + [f"routes.{name}.{key}" for name in "ab" for key in (*RouteSection.model_fields, "respond.headers", "x")]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(st.lists(st.tuples(PATHS, VALUES), min_size=1, max_size=4))
def test_any_values_anywhere_are_loaded_or_refused(tmp_path, values):
    sets = tuple(f"{path}={json.dumps(value)}" for path, value in values)
    try:
        got = load(Sources.from_options(config_files=["/dev/null"], sets=sets, environ={}, cwd=tmp_path))
    except ConfigError as error:
        for each in error.problems:
            assert str(each).isprintable()
            assert each.message
    else:
        assert Settings.model_validate(got.settings.model_dump(mode="json")) == got.settings


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("/api/*", "/api"),
        ("/api/**", "/api"),
        ("/api*", "/api"),
        ("/*", "/"),
        ("*", None),
        ("/u/{id}", "/u"),
        ("/u/{id}/posts", "/u"),
        ("/u/:id", "/u"),
        ("/u/<int:id>", "/u"),
        ("/a/*/b", "/a"),
        ("/api/(.*)", "/api"),
        ("/api/.*", "/api"),
        ("/api/.+", "/api"),
        ("/api/(v1|v2)", "/api"),
        ("/api/v[12]", "/api"),
        ("/api/\\\\d+", "/api"),
        ("^/api", None),
        ("/api$", None),
        ("/v1/api$", "/v1"),
        ("~ ^/api", None),
        ("/{x}", None),
    ],
)
def test_a_pattern_is_no_path(tmp_path, path, hint):
    said = problem(tmp_path, f'routes: {{a: {{to: 1, path: "{path}"}}}}')
    assert "is a pattern, and a path is a prefix that ends at the end of a segment" in said
    assert said.endswith(f"(did you mean '{hint}'?)" if hint else "a character that is meant itself")


@pytest.mark.parametrize(
    ("path", "reads"),
    [
        ("/odata/$metadata", "/odata/$metadata"),
        ("/v1/thing:cancel", "/v1/thing:cancel"),
        ("/Products(1)", "/Products(1)"),
        ("/a+b", "/a+b"),
        ("/a%2A", "/a*"),
        ("/u/%7Bid%7D", "/u/{id}"),
        ("/u/%3Aid", "/u/:id"),
    ],
)
def test_what_looks_a_little_like_a_pattern_and_is_a_path(tmp_path, path, reads):
    assert loaded(tmp_path, f"routes: {{a: {{to: 1, path: '{path}'}}}}").settings.routes["a"].path == reads

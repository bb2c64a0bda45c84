import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { ConfigError } from "../../src/errors.ts";
import {
  canonicalAddress,
  formatAddress,
  parseAddress,
  parseDialAddress,
} from "../../src/transport/address.ts";

function refusal(text: unknown): string {
  try {
    parseAddress(text as string);
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.path, "address");
    return error.message;
  }
  return assert.fail(`accepted ${String(text)}`);
}

describe("parseAddress of schemes with other addresses", () => {
  it("takes the path of a WebSocket, and knows its ports", () => {
    const cases: [string, string, number, string, string][] = [
      ["ws://h:8080/a/b", "h", 8080, "/a/b", "ws://h:8080/a/b"],
      ["ws://h", "h", 80, "/", "ws://h:80/"],
      ["wss://[::1]/x", "::1", 443, "/x", "wss://[::1]:443/x"],
    ];
    for (const [text, host, port, path, canonical] of cases) {
      const address = parseAddress(text);
      assert.deepEqual(address, { scheme: text.split(":")[0], host, port, path });
      assert.equal(canonicalAddress(address), canonical);
      assert.deepEqual(parseAddress(canonical), address);
    }
    for (const text of ["ws://h/a?b", "ws://h/a#b", "wss://h/\\a", "ws://u@h/"]) refusal(text);
  });

  it("takes the path of a Unix socket", () => {
    for (const text of ["unix:/run/a.sock", "unix:///run/a.sock", "UNIX:/run/a.sock"]) {
      const address = parseAddress(text);
      assert.deepEqual(address, { scheme: "unix", host: "", port: 0, path: "/run/a.sock" });
      assert.equal(canonicalAddress(address), "unix:/run/a.sock");
      assert.deepEqual(parseDialAddress(text), address);
    }
    assert.equal(parseAddress("unix:./a.sock").path, "./a.sock");
    assert.equal(parseAddress(`unix:/${"a".repeat(102)}`).path.length, 103);
    for (const text of ["unix:", "unix://host/a", "unix:/a\0b", `unix:/${"a".repeat(103)}`]) {
      refusal(text);
    }
  });

  it("needs no port in memory", () => {
    assert.equal(canonicalAddress(parseDialAddress("memory://node1")), "memory://node1");
    assert.equal(canonicalAddress(parseDialAddress("memory://node1:7")), "memory://node1:7");
  });
});

describe("parseAddress", () => {
  it("takes a scheme, a host and a port apart", () => {
    assert.deepEqual(parseAddress("tcp://node1.example.com:9100"), {
      scheme: "tcp",
      host: "node1.example.com",
      port: 9100,
      path: "",
    });
    assert.deepEqual(parseAddress("QUIC://10.0.1.2:1"), {
      scheme: "quic",
      host: "10.0.1.2",
      port: 1,
      path: "",
    });
  });

  it("takes an address without a scheme for tcp", () => {
    assert.deepEqual(parseAddress("db_1:65535"), {
      scheme: "tcp",
      host: "db_1",
      port: 65535,
      path: "",
    });
    assert.deepEqual(parseAddress("0.0.0.0:0"), {
      scheme: "tcp",
      host: "0.0.0.0",
      port: 0,
      path: "",
    });
  });

  it("takes the brackets off an IPv6 address", () => {
    for (const host of ["::", "::1", "1:2:3:4:5:6:7:8", "1::8", "::ffff:1.2.3.4", "fe80::1%eth0"]) {
      assert.deepEqual(parseAddress(`[${host}]:9100`), {
        scheme: "tcp",
        host,
        port: 9100,
        path: "",
      });
    }
  });

  it("refuses an address without a port, or with a wrong one", () => {
    assert.equal(refusal("host"), 'address: must end in ":port", got "host"');
    assert.equal(refusal("[::1]"), 'address: must end in ":port", got "[::1]"');
    for (const port of ["", "65536", "-1", "+1", "01", "1e3", "0x50", "1.0", "99999999999"]) {
      const text = `host:${port}`;
      assert.equal(
        refusal(text),
        `address: must end in a port between 0 and 65535, got "${text}"`,
      );
    }
  });

  it("refuses an empty host", () => {
    for (const text of [":9100", "tcp://:9100", "[]:9100"]) {
      assert.match(refusal(text), /must name a host/);
    }
  });

  it("refuses an IPv6 address without brackets", () => {
    for (const text of ["::1:9100", "fe80::1:2:9100", "tcp://1:2:3:4:5:6:7:8:9100"]) {
      assert.match(refusal(text), /must have brackets around an IPv6 address/);
    }
  });

  it("refuses what is no IPv6 address between brackets", () => {
    const hosts = ["1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8::", "12345::", ":1::2", "1.2.3.4"];
    for (const host of [...hosts, "1.2.3.4::", "::1%", "::1%a%b", "host", "::1]:2["]) {
      assert.match(refusal(`[${host}]:9100`), /an IPv6 address between the brackets/, host);
    }
  });

  it("refuses hosts that are neither a name nor an IPv4 address", () => {
    const hosts = ["256.1.1.1", "1.2.3", "01.2.3.4", "1", "0x7f.1", "a..b", "-a", "a-", "é", "a*"];
    for (const host of [...hosts, "x".repeat(64), "\u001b[31m"]) {
      assert.match(refusal(`${host}:9100`), /must have a valid host name or IP address/, host);
    }
  });

  it("refuses spaces, paths and odd schemes", () => {
    for (const text of [" host:1", "host:1 ", "ho st:1", "host:1\n", "host\t:1"]) {
      assert.match(refusal(text), /must not contain spaces/);
    }
    for (const text of ["tcp://host:1/", "host:1/path", "host:1?a=b", "host:1#a", "a\\b:1"]) {
      assert.match(refusal(text), /must not contain a path/);
    }
    assert.match(refusal("://host:1"), /must start with a scheme or a host/);
    assert.match(refusal("1x://host:1"), /must start with a scheme or a host/);
  });

  it("refuses user info without quoting the password", () => {
    assert.equal(refusal("tcp://user:secret@host:1"), "address: must not contain user info");
  });

  it("refuses what is no text, and what is far too long", () => {
    assert.match(refusal(9100), /must be a text such as "tcp:\/\/host:port", got 9100/);
    assert.match(refusal(null), /got null/);
    assert.equal(refusal("x".repeat(1e6)), "address: is too long for an address");
  });

  it("throws only ConfigError, whatever the text", () => {
    const near = fc.stringMatching(/^[a-c0-9:[\]./@% -]{0,20}$/);
    fc.assert(fc.property(fc.oneof(fc.string({ unit: "binary" }), near), (text) => {
      try {
        parseAddress(text);
      } catch (error) {
        assert.ok(error instanceof ConfigError);
        assert.match(error.message, /^[ -~…]*$/);
      }
    }));
  });
});

describe("parseDialAddress", () => {
  it("refuses port 0, which only a listener can use", () => {
    assert.throws(() => parseDialAddress("host:0", "peers[1].address"), {
      name: "ConfigError",
      path: "peers[1].address",
      message: "peers[1].address: must not have port 0, which asks a listener for a free port",
    });
    assert.equal(parseDialAddress("host:1").port, 1);
  });
});

describe("formatAddress", () => {
  it("puts brackets around an IPv6 address only", () => {
    assert.equal(formatAddress("tcp", "::1", 9100), "tcp://[::1]:9100");
    assert.equal(formatAddress("quic", "10.0.1.2", 0), "quic://10.0.1.2:0");
  });

  it("is undone by parseAddress", () => {
    const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6());
    const scheme = fc.constantFrom("tcp", "quic", "ws", "memory");
    fc.assert(
      fc.property(scheme, host, fc.nat({ max: 65535 }), (scheme, host, port) => {
        const path = scheme === "ws" ? "/" : "";
        const text = formatAddress(scheme, host, port, path);
        assert.deepEqual(parseAddress(text), { scheme, host, port, path });
      }),
    );
  });
});

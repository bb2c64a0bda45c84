import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { checkTogether, parseNodeNames } from "../../src/certs/node_names.ts";
import { UsageError } from "../../src/certs/usage_error.ts";

describe("a node on the command line", () => {
  it("is an id, with hosts and addresses behind an equals sign", () => {
    assert.deepEqual(parseNodeNames("node1"), {
      nodeId: "node1",
      dnsNames: [],
      ipAddresses: [],
    });
    assert.deepEqual(parseNodeNames("db:1@eu=db1.example.com,10.0.0.5,fe80::1,my_host"), {
      nodeId: "db:1@eu",
      dnsNames: ["db1.example.com", "my_host"],
      ipAddresses: ["10.0.0.5", "fe80::1"],
    });
  });

  it("is refused where the id is no node id or can't name a file", () => {
    const ids = [
      "",
      " ",
      "a b",
      "é",
      "a\n",
      "n".repeat(256),
      "a/b",
      "..",
      "a\\b",
      ".a",
      "ca",
      "CA",
    ];
    for (const id of ids) assert.throws(() => parseNodeNames(id), UsageError, id);
    assert.equal(parseNodeNames("n".repeat(255)).nodeId.length, 255);
  });

  it("is refused where a host is neither a name nor an address", () => {
    const hosts = [
      "",
      "a,",
      ",a",
      "*.example.com",
      "a b",
      "-a",
      "a-",
      "a..b",
      "10.0.0.256",
      "1.2.3",
    ];
    for (const host of [...hosts, "fe80::1%eth0", "[::1]", "a:1", "n".repeat(254), "a/b", "a=b"]) {
      assert.throws(() => parseNodeNames(`node1=${host}`), UsageError, host);
    }
  });

  it("is refused beside itself, and where its host is another node's id", () => {
    const check = (...nodes: string[]) => checkTogether(nodes.map(parseNodeNames));
    check("a=a", "b=c", "d=c");
    assert.throws(() => check("a", "b", "a"), UsageError);
    assert.throws(() => check("a", "A"), UsageError);
    assert.throws(() => check("a=b", "b"), UsageError);
    assert.throws(() => check("a=B", "b"), UsageError);
  });
});

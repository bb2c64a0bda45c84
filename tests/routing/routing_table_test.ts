import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ConfigError } from "../../src/errors.ts";
import type { PeerAddress } from "../../src/options.ts";
import { resolveOptions } from "../../src/resolve_options.ts";
import { RoutingTable } from "../../src/routing.ts";

const NODE2: PeerAddress = { nodeId: "node2", address: "tcp://b:1" };
const NODE3: PeerAddress = { nodeId: "node3", address: "tcp://c:1" };
const GATEWAY: PeerAddress = { nodeId: "gateway", address: "tcp://g:1" };

function problem(action: () => void): string {
  try {
    action();
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message;
  }
  return assert.fail("accepted");
}

describe("RoutingTable", () => {
  it("resolves a recipient to its route, any other to the default", () => {
    const table = new RoutingTable({ routes: { "did:key:z6Mk": NODE2 }, defaultRoute: GATEWAY });
    assert.deepEqual(table.resolve("did:key:z6Mk"), NODE2);
    assert.deepEqual(table.resolve("did:key:other"), GATEWAY);
    assert.equal(table.get("did:key:other"), undefined);
    assert.ok(table.has("did:key:z6Mk") && !table.has("did:key:other"));
  });

  it("resolves to nothing where there is neither", () => {
    const table = new RoutingTable();
    assert.equal(table.resolve("did:key:z6Mk"), undefined);
    assert.equal(table.defaultRoute, undefined);
    for (const name of ["__proto__", "constructor", "toString"]) {
      assert.equal(table.resolve(name), undefined);
      table.set(name, NODE2);
      assert.deepEqual(table.resolve(name), NODE2);
    }
  });

  it("can be changed at any time", () => {
    const table = new RoutingTable();
    table.set("a", NODE2);
    table.set("b", NODE2);
    table.set("a", NODE3);
    assert.deepEqual([...table.entries()], [["a", NODE3], ["b", NODE2]]);
    assert.equal(table.size, 2);
    assert.ok(table.delete("a"));
    assert.ok(!table.delete("a"));
    table.defaultRoute = GATEWAY;
    assert.deepEqual(table.resolve("a"), GATEWAY);
    table.clear();
    assert.equal(table.size, 0);
    assert.deepEqual(table.defaultRoute, GATEWAY);
    table.defaultRoute = undefined;
    assert.equal(table.resolve("a"), undefined);
  });

  it("keeps frozen copies, their addresses with a scheme", () => {
    const table = new RoutingTable();
    const route = { nodeId: "node2", address: "b:1" };
    table.set("a", route);
    route.nodeId = "other";
    assert.deepEqual(table.get("a"), NODE2);
    assert.ok(Object.isFrozen(table.get("a")));
    table.defaultRoute = route;
    assert.ok(Object.isFrozen(table.defaultRoute));
  });

  it("starts from the options of an endpoint", () => {
    const { routes, defaultRoute } = resolveOptions({
      nodeId: "node1",
      routes: { "did:key:z6Mk": { nodeId: "node2", address: "b:1" } },
      defaultRoute: GATEWAY,
    });
    const table = new RoutingTable({ routes, defaultRoute });
    assert.deepEqual(table.resolve("did:key:z6Mk"), NODE2);
    assert.deepEqual(table.resolve("x"), GATEWAY);
  });

  it("refuses what is no recipient", () => {
    const table = new RoutingTable();
    for (const name of ["", "a b", "é", "a\n", "x".repeat(256), 5, undefined]) {
      const message = problem(() => table.set(name as string, NODE2));
      assert.match(message, /^routes: each key must be 1 to 255 characters of printable ASCII/);
    }
    table.set("x".repeat(255), NODE2);
    assert.equal(table.size, 1);
  });

  it("refuses wrong routes by their path, and stays as it was", () => {
    const table = new RoutingTable({ routes: { a: NODE2 }, defaultRoute: GATEWAY });
    const set = (route: unknown) => problem(() => table.set("a", route as PeerAddress));
    assert.equal(set({ nodeId: "b" }), 'routes["a"].address: is required');
    assert.equal(set({ address: "b:1" }), 'routes["a"].nodeId: is required');
    assert.equal(
      set({ nodeId: "b", address: "b" }),
      'routes["a"].address: must end in ":port", got "b"',
    );
    assert.match(set({ nodeId: "b", address: "b:0" }), /address: must not have port 0/);
    assert.match(set({ ...NODE2, port: 1 }), /^routes\["a"\]\.port: unknown option/);
    assert.equal(set("b:1"), 'routes["a"]: must be a plain object, got "b:1"');
    assert.deepEqual(table.get("a"), NODE2);
    const setDefault = () => table.defaultRoute = { nodeId: "", address: "g:1" };
    assert.match(problem(setDefault), /^defaultRoute\.nodeId: must be 1 to 255 characters/);
    assert.deepEqual(table.defaultRoute, GATEWAY);
  });

  it("is bounded", () => {
    const table = new RoutingTable({ maxRoutes: 2, routes: { a: NODE2, b: NODE2 } });
    assert.equal(problem(() => table.set("c", NODE2)), "routes: must have at most 2 entries");
    table.set("b", NODE3);
    table.delete("a");
    table.set("c", NODE2);
    assert.equal(table.size, 2);
    for (const maxRoutes of [0, -1, 1.5, NaN]) {
      assert.throws(() => new RoutingTable({ maxRoutes }), RangeError);
    }
  });

  it("holds 65536 routes where it is told nothing else", () => {
    const table = new RoutingTable();
    for (let i = 0; i < 65536; i++) table.set(`r${i}`, NODE2);
    assert.equal(problem(() => table.set("one", NODE2)), "routes: must have at most 65536 entries");
  });
});

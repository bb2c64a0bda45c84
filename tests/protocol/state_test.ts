import { describe, it } from "node:test";
import assert from "node:assert/strict";
import fc from "fast-check";
import { canChange, type ConnectionState, StateMachine } from "../../src/protocol/state.ts";

const STATES: readonly ConnectionState[] = [
  "connecting",
  "handshaking",
  "active",
  "reconnecting",
  "draining",
  "failed",
  "closed",
];

/** Rows: from; columns: to, in the order above. Drawn from the seeds' diagram. */
const TABLE = [
  ". x . x . x x", // connecting
  ". . x x . x x", // handshaking
  ". . . x x x x", // active
  "x . . . . x x", // reconnecting
  ". . . x . x x", // draining
  "x . . . . . x", // failed
  ". . . . . . .", // closed
];

const allowed = (from: number, to: number) => TABLE[from]!.split(" ")[to] === "x";

describe("StateMachine", () => {
  it("starts where it is told, in connecting by default", () => {
    assert.equal(new StateMachine().state, "connecting");
    assert.equal(new StateMachine("handshaking").state, "handshaking");
  });

  it("takes every possible change and refuses every other, staying where it was", () => {
    STATES.forEach((from, i) => {
      STATES.forEach((to, j) => {
        const machine = new StateMachine(from);
        assert.equal(canChange(from, to), allowed(i, j), `${from} -> ${to}`);
        if (allowed(i, j)) {
          assert.equal(machine.change(to), undefined);
          assert.equal(machine.state, to);
        } else {
          assert.throws(() => machine.change(to), {
            name: "Error",
            message: `Cannot change a connection from ${from} to ${to}: impossible change`,
          });
          assert.equal(machine.state, from);
        }
      });
    });
  });

  it("lives through loss, reconnection and an orderly end", () => {
    const machine = new StateMachine();
    const life: ConnectionState[] = ["handshaking", "active", "reconnecting", "connecting"];
    life.push("failed", "connecting", "handshaking", "active", "draining", "closed");
    for (const state of life) machine.change(state);
    assert.equal(machine.state, "closed");
  });

  it("never leaves closed, and is active only after a handshake", () => {
    fc.assert(fc.property(fc.array(fc.constantFrom(...STATES), { maxLength: 40 }), (wishes) => {
      const machine = new StateMachine();
      for (const to of wishes) {
        const from = machine.state;
        if (canChange(from, to)) machine.change(to);
        if (from === "closed") assert.equal(machine.state, "closed");
        if (machine.state === "active" && from !== "active") assert.equal(from, "handshaking");
      }
    }));
  });
});

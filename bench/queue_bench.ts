/**
 * Queues of messages that wait: the ring that they stand in against an array, and a peer's backlog of
 * three lanes with its counts. Each iteration puts in and takes out as many messages as wait.
 */

import { Fifo } from "../src/protocol/fifo.ts";
import { Backlog } from "../src/protocol/v3/backlog.ts";
import type { OutMessage } from "../src/protocol/v3/out_message.ts";
import { KIND, NORMAL } from "../src/protocol/v3/types.ts";

const LENGTHS: readonly number[] = [10, 1000, 10_000];

const MESSAGE: OutMessage = {
  kind: KIND.data,
  lane: NORMAL,
  topic: undefined,
  prefix: undefined,
  payload: new Uint8Array(64),
  atMostOnce: false,
  tracker: undefined,
};

/** Keeps results alive, so that no work can be left out. */
let sink = 0;

for (const waiting of LENGTHS) {
  const group = `${waiting} messages wait`;

  const array = filled<OutMessage[]>(waiting, (list) => list.push(MESSAGE), []);
  Deno.bench({ name: `array, ${waiting}`, group, baseline: true }, () => {
    for (let i = 0; i < waiting; i++) {
      array.push(MESSAGE);
      sink += array.shift()!.payload.length;
    }
  });

  const fifo = filled(waiting, (queue: Fifo<OutMessage>) => queue.push(MESSAGE), new Fifo());
  Deno.bench({ name: `Fifo, ${waiting}`, group }, () => {
    for (let i = 0; i < waiting; i++) {
      fifo.push(MESSAGE);
      sink += fifo.shift()!.payload.length;
    }
  });

  const backlog = filled(waiting, (queue: Backlog) => queue.push(MESSAGE), new Backlog());
  Deno.bench({ name: `Backlog, ${waiting}`, group }, () => {
    for (let i = 0; i < waiting; i++) {
      backlog.push(MESSAGE);
      backlog.shift(NORMAL);
    }
    sink += backlog.bytes;
  });
}

function filled<T>(count: number, add: (to: T) => void, to: T): T {
  for (let i = 0; i < count; i++) add(to);
  return to;
}

/** What a rate limit costs each message; the baseline is the clock that both need. */

import { TokenBucket } from "../src/protocol/token_bucket.ts";

const group = "token bucket";
/** Keeps results alive, so that no work can be left out. */
let granted = 0;

Deno.bench({
  name: "performance.now() alone",
  group,
  baseline: true,
  fn: () => {
    if (performance.now() > 0) granted++;
  },
});

const full = new TokenBucket({ bucketSize: 1e9, refillRate: 1e9 }, performance.now());
Deno.bench({
  name: "tryTake, granted",
  group,
  fn: () => {
    if (full.tryTake(performance.now())) granted++;
  },
});

const empty = new TokenBucket({ bucketSize: 1, refillRate: 1e-9 }, performance.now());
empty.tryTake(performance.now());
Deno.bench({
  name: "tryTake, refused, and retryAfterMs",
  group,
  fn: () => {
    const now = performance.now();
    if (!empty.tryTake(now)) granted += empty.retryAfterMs(now);
  },
});

/**
 * The tests of QUIC on one runtime, which Deno runs with `--unstable-net` only. Needs `--allow-run`;
 * `deno test --allow-net` leaves it out.
 */

import { unstableTests } from "./unstable_tests.ts";

unstableTests("the tests of QUIC on each runtime", {
  "../transport/quic_test.ts": undefined,
  "../transport/quic_path_test.ts": undefined,
  "../endpoint/quic_test.ts": undefined,
  "../endpoint/quic_substreams_test.ts": undefined,
  "../endpoint/transports_ledger_test.ts": "over QUIC",
  "../deno_leaks_test.ts": "quic",
});

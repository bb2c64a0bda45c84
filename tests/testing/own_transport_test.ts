/** The example of a transport, held to what every transport owes. */

import { channelTransport } from "../../examples/own_transport.ts";
import { linkContract } from "../transport/link_contract.ts";

let names = 0;
linkContract("examples/own_transport.ts", () =>
  Promise.resolve({
    transport: channelTransport(),
    listenAddress: `channel://test${names++}:1`,
  }));

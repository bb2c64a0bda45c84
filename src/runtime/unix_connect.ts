/**
 * Dialing Unix sockets.
 *
 * @module
 */

import type { DialOptions, Link } from "../transport/transport.ts";
import { connectNode } from "./node_connect.ts";
import { checkUnixAddress, type UnixAddress } from "./unix_address.ts";

/** Opens a connection; see {@linkcode Runtime.connect} for what it throws. */
export async function connectUnix(address: UnixAddress, options: DialOptions): Promise<Link> {
  checkUnixAddress(address);
  return await connectNode(address, options);
}

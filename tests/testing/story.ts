/** Prints what a story comes to, for comparing runtimes: `story.ts SEED MINUTES`. */

import process from "node:process";
import { story } from "./simulated_cluster.ts";

const [seed, minutes] = process.argv.slice(2).map(Number) as [number, number];
console.log(JSON.stringify(await story(seed, minutes)));

/** The demo of `npm start`: a container from an OCI image in a virtual machine, and where the time went. */
import { busyboxImage } from "./images.ts";

export async function runDemo(hako: string): Promise<number> {
  const image = await busyboxImage("oci");
  const script = 'echo "hello from a container: $(uname -sr), $(nproc) CPU, $(grep MemTotal /proc/meminfo)"';
  const command = [hako, "run", "--rm", "--timing", image, "sh", "-c", script];
  console.log(`\n$ ${command.map((word) => (/[ $"]/.test(word) ? `'${word}'` : word)).join(" ")}`);
  const child = Bun.spawn(command, { stdin: "ignore", stdout: "inherit", stderr: "inherit" });
  return await child.exited;
}

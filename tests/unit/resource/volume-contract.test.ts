import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Mount } from "#oci/runtime-spec.ts";
import { directVolume } from "#resource/volume/direct.ts";
import { directoryVolume } from "#resource/volume/directory.ts";
import { emptyDirVolume } from "#resource/volume/empty-dir.ts";
import { fileVolume } from "#resource/volume/file.ts";
import { hugepageVolume } from "#resource/volume/hugepages.ts";
import { projectedVolume } from "#resource/volume/projected.ts";
import { shmVolume } from "#resource/volume/shm.ts";
import { volumeContract } from "../../contract/volume.ts";

const bind = (source: string, destination = "/data", mode = "ro"): Mount => ({
  destination,
  type: "bind",
  source,
  options: ["rbind", mode],
});

/** A directory of the kubelet's, with a key in it. */
function podVolume(directory: string, kind: string): string {
  const path = join(directory, "pods/p1/volumes", `kubernetes.io~${kind}`, "v");
  mkdirSync(join(path, "..v1"), { recursive: true });
  writeFileSync(join(path, "..v1/key"), "value");
  symlinkSync("..v1", join(path, "..data"));
  symlinkSync("..data/key", join(path, "key"));
  return path;
}

volumeContract({ handler: shmVolume, registered: true, mount: () => bind("/dev/shm", "/dev/shm") });
volumeContract({
  handler: shmVolume,
  registered: true,
  mount: () => bind("/dev/shm", "/dev/shm"),
  place: { sharedShm: true },
});
volumeContract({
  handler: emptyDirVolume,
  registered: true,
  mount: (directory) => bind(podVolume(directory, "empty-dir"), "/data", "rw"),
});
for (const kind of ["configmap", "secret", "projected", "downward-api"]) {
  volumeContract({
    handler: projectedVolume,
    registered: true,
    mount: (directory) => bind(podVolume(directory, kind)),
  });
}
volumeContract({
  handler: fileVolume,
  registered: true,
  mount(directory) {
    writeFileSync(join(directory, "file"), "text");
    return bind(join(directory, "file"));
  },
});
volumeContract({
  handler: directoryVolume,
  registered: true,
  mount(directory) {
    mkdirSync(join(directory, "tree/sub"), { recursive: true });
    writeFileSync(join(directory, "tree/sub/file"), "text");
    return bind(join(directory, "tree"));
  },
});
volumeContract({
  handler: hugepageVolume,
  registered: true,
  mount: () => ({ destination: "/huge", type: "hugetlbfs", source: "nodev", options: ["pagesize=2M"] }),
  place: { hugepageLimits: [{ pageSize: "2MB", limit: 4 << 20 }] },
});

let announced = "";
volumeContract({
  handler: {
    name: "direct",
    matches: (mount, place) => directVolume(announced).matches(mount, place),
    prepare: (mount, place, signal) => directVolume(announced).prepare(mount, place, signal),
  },
  registered: false,
  mount(directory) {
    announced = join(directory, "direct");
    const source = "/var/lib/kubelet/pods/p1/volumes/kubernetes.io~csi/pvc/mount";
    const place = join(announced, Buffer.from(source).toString("base64").replaceAll("/", "_"));
    mkdirSync(place, { recursive: true });
    writeFileSync(join(directory, "disk.img"), "disk");
    const info = {
      "volume-type": "directvol",
      device: join(directory, "disk.img"),
      fstype: "ext4",
      options: [],
    };
    writeFileSync(join(place, "mountInfo.json"), JSON.stringify(info));
    return bind(source);
  },
});

# What an agent answers for one pod: "hako policy generate" puts the pod, as policy_data, behind these rules.
# The host is not trusted: whatever is not described in policy_data is refused, above all where things are mounted.
package agent_policy

import rego.v1

# Calls that tell the host nothing and change nothing in containers.
default DestroySandboxRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default ListInterfacesRequest := true
default ListRoutesRequest := true
default OnlineCPUMemRequest := true
default RemoveContainerRequest := true
default RemoveStaleVirtiofsShareMountsRequest := true
default SignalProcessRequest := true
default StartContainerRequest := true
default StatsContainerRequest := true
default TtyWinResizeRequest := true
default WaitProcessRequest := true

# Calls that are refused unless a rule below allows them.
default AddARPNeighborsRequest := false
default CloseStdinRequest := false
default CopyFileRequest := false
default CreateContainerRequest := false
default CreateSandboxRequest := false
default ExecProcessRequest := false
default ReadStreamRequest := false
default SetGuestDateTimeRequest := false
default UpdateInterfaceRequest := false
default UpdateRoutesRequest := false
default WriteStreamRequest := false

# Calls that are always refused.
default AddSwapPathRequest := false
default AddSwapRequest := false
default GetDiagnosticDataRequest := false
default GetIPTablesRequest := false
default GetMetricsRequest := false
default MemAgentCompactConfig := false
default MemAgentMemcgConfig := false
default MemHotplugByProbeRequest := false
default PauseContainerRequest := false
default ReseedRandomDevRequest := false
default ResizeVolumeRequest := false
default ResumeContainerRequest := false
default SetIPTablesRequest := false
default SetPolicyRequest := false
default UpdateContainerRequest := false
default UpdateEphemeralMountsRequest := false
default VolumeStatsRequest := false

# ---------------------------------------------------------------------------------------------- the sandbox

run_directory := policy_data.run_directory

shared_directory := concat("/", [run_directory, "shared/containers"])

CreateSandboxRequest if {
	input.guest_hook_path == ""
	count(input.kernel_modules) == 0
	every storage in input.storages {
		sandbox_storage(storage)
	}
}

# Shared memory of the pod.
sandbox_storage(storage) if {
	storage.driver == "ephemeral"
	storage.fstype == "tmpfs"
	storage.mount_point == concat("/", [run_directory, "sandbox/shm"])
	every option in storage.options {
		regex.match(`^(noexec|nosuid|nodev|mode=1777|size=[0-9]+[km]?)$`, option)
	}
}

# The clock is set once, before anything can have been measured by it.
SetGuestDateTimeRequest := {"allowed": true, "ops": ops} if {
	not data.pstate.clock
	ops := [{"op": "add", "path": "/pstate/clock", "value": true}]
}

UpdateInterfaceRequest if {
	input["interface"].name != "lo"
	input["interface"].hwAddr != "00:00:00:00:00:00"
}

UpdateRoutesRequest if {
	every route in input.routes.Routes {
		route.device != "lo"
		not regex.match(`^(127\.|::1$)`, route.source)
	}
}

AddARPNeighborsRequest if {
	every neighbor in input.neighbors.ARPNeighbors {
		neighbor.device != "lo"
	}
}

# ---------------------------------------------------------------------------------------------- containers

CreateContainerRequest := {"allowed": true, "ops": ops} if {
	id := input.container_id
	regex.match(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`, id)
	not data.pstate.containers[id]
	nothing_unknown
	some index, container in policy_data.containers
	allow_root(container, id)
	allow_process(container, input.OCI.Process)
	allow_user(container)
	allow_linux(container, input.OCI.Linux)
	allow_mounts(container, id)
	allow_storages(container, id)
	ops := created(id, index)
}

# Remembers which of the pod's containers an id stands for: its further processes are judged by that.
created(id, index) := ops if {
	data.pstate.containers
	ops := [{"op": "add", "path": concat("/", ["/pstate/containers", id]), "value": index}]
}

created(id, index) := ops if {
	not data.pstate.containers
	ops := [{"op": "add", "path": "/pstate/containers", "value": {id: index}}]
}

nothing_unknown if {
	is_null(input.OCI.Hooks)
	count(input.shared_mounts) == 0
	count(input.devices) == 0
	input.stdin_port == 0
	input.stdout_port == 0
	input.stderr_port == 0
	input.OCI.Linux.MountLabel == ""
	input.OCI.Process.SelinuxLabel == ""
}

allow_root(container, id) if {
	input.OCI.Root.Path == concat("/", [run_directory, id, "rootfs"])
	read_only_enough(container.read_only_root, input.OCI.Root.Readonly)
}

read_only_enough(wanted, _) if wanted == false

read_only_enough(_, given) if given == true

# -------------------------------------------------------------------------------------- processes

allow_process(container, process) if {
	process.Args == container.args
	allow_surroundings(container, process)
}

allow_surroundings(container, process) if {
	process.Cwd == container.cwd
	every entry in process.Env {
		allow_env(container, entry)
	}
	allow_terminal(container, process.Terminal)
	privileges_kept(container, process.NoNewPrivileges)
	every set in [
		process.Capabilities.Bounding,
		process.Capabilities.Effective,
		process.Capabilities.Inheritable,
		process.Capabilities.Permitted,
		process.Capabilities.Ambient,
	] {
		every capability in set {
			concat("", ["CAP_", trim_prefix(capability, "CAP_")]) in container.capabilities
		}
	}
}

allow_env(container, entry) if entry in container.env

allow_env(_, entry) if {
	some pattern in policy_data.env_patterns
	regex.match(pattern, entry)
}

allow_terminal(container, terminal) if terminal == container.terminal

allow_terminal(_, terminal) if terminal == false

privileges_kept(container, _) if container.no_new_privileges == false

privileges_kept(_, given) if given == true

# By number, or by a name that the agent looks up in the container's own files.
allow_user(container) if {
	is_null(input.string_user)
	same_user(container.user, input.OCI.Process.User)
}

allow_user(container) if {
	user := input.string_user
	count(user.additionalGids) == 0
	concat(":", [user.uid, user.gid]) == container.named_user
}

same_user(user, given) if {
	given.UID == user.uid
	given.GID == user.gid
	every group in given.AdditionalGids {
		group in user.groups
	}
}

ExecProcessRequest if {
	container := created_container(input.container_id)
	some command in container.exec_commands
	input.process.Args == command
	allow_surroundings(container, input.process)
	exec_user(container)
}

ExecProcessRequest if {
	policy_data.allow_exec
	created_container(input.container_id)
}

exec_user(container) if {
	is_null(input.string_user)
	same_user(container.user, input.process.User)
}

exec_user(container) if concat(":", [input.string_user.uid, input.string_user.gid]) == container.named_user

created_container(id) := policy_data.containers[data.pstate.containers[id]]

# -------------------------------------------------------------------------------------- streams

ReadStreamRequest if policy_data.allow_output

CloseStdinRequest if created_container(input.container_id)

WriteStreamRequest if {
	container := created_container(input.container_id)
	container.stdin
}

# -------------------------------------------------------------------------------------- kernel objects

allow_linux(container, linux) if {
	every namespace in linux.Namespaces {
		namespace.Path == ""
		normal_type(namespace.Type) in {"pid", "mount", "ipc", "uts", "cgroup", "network"}
	}
	some namespace in linux.Namespaces
	normal_type(namespace.Type) == "mount"
	count(linux.Devices) == 0
	count(linux.UIDMappings) == 0
	count(linux.GIDMappings) == 0
	every key, value in linux.Sysctl {
		container.sysctls[key] == value
	}
	paths_hidden(container, linux)
}

normal_type(type) := "network" if type == "net"

normal_type(type) := type if type != "net"

paths_hidden(container, _) if container.privileged

paths_hidden(_, linux) if {
	every path in policy_data.masked_paths {
		path in linux.MaskedPaths
	}
	every path in policy_data.read_only_paths {
		hidden_or_read_only(path, linux)
	}
}

hidden_or_read_only(path, linux) if path in linux.ReadonlyPaths

hidden_or_read_only(path, linux) if path in linux.MaskedPaths

# -------------------------------------------------------------------------------------- mounts

allow_mounts(container, id) if {
	every mount in input.OCI.Mounts {
		allow_mount(container, mount, id)
	}
	destinations := [mount.destination | some mount in input.OCI.Mounts]
	count(destinations) == count({destination | some destination in destinations})
}

# File systems of the kernel, at their places.
allow_mount(container, mount, _) if {
	some known in policy_data.kernel_mounts
	mount.destination == known.destination
	mount.type_ == known.type
	mount.source == known.source
	options_kept(known.options, mount.options)
	writable_only_if_privileged(container, known, mount)
}

# What protects must be there; more may be.
options_kept(wanted, given) if {
	every option in wanted {
		option in given
	}
}

writable_only_if_privileged(container, _, _) if container.privileged

writable_only_if_privileged(_, known, _) if not "ro" in known.options

writable_only_if_privileged(_, _, mount) if {
	"ro" in mount.options
	not "rw" in mount.options
}

# Volumes: the destination is the manifest's, the source one of the places that belong to this container.
allow_mount(container, mount, id) if {
	mount.type_ == "bind"
	some volume in container.mounts
	mount.destination == volume.destination
	some pattern in volume.sources
	regex.match(fill(pattern, id), mount.source)
	stays_below(mount.source)
	writable_if_wanted(volume, mount)
}

writable_if_wanted(volume, _) if volume.read_only == false

writable_if_wanted(_, mount) if {
	"ro" in mount.options
	not "rw" in mount.options
}

# Patterns name the run directory and the container; both are words without special characters but dots.
fill(pattern, id) := filled if {
	named := replace(pattern, "$(container)", replace(id, ".", `\.`))
	filled := replace(named, "$(run)", replace(run_directory, ".", `\.`))
}

# -------------------------------------------------------------------------------------- storages

allow_storages(container, id) if {
	every storage in input.storages {
		allow_storage(container, storage, id)
	}
	points := [storage.mount_point | some storage in input.storages]
	count(points) == count({point | some point in points})
}

allow_storage(container, storage, id) if {
	some known in array.concat(policy_data.storages, container.storages)
	storage.driver in known.drivers
	storage.fstype == known.fstype
	regex.match(fill(known.mount_point, id), storage.mount_point)
	stays_below(storage.mount_point)
	every option in storage.options {
		allow_storage_option(known, option, id)
	}
	options_kept(known.wanted, storage.options)
	every option in storage.driver_options {
		some pattern in known.driver_options
		regex.match(pattern, option)
	}
	is_null(storage.fs_group)
}

allow_storage_option(known, option, id) if {
	some pattern in known.options
	regex.match(fill(pattern, id), option)
}

# -------------------------------------------------------------------------------------- files

# A path without "." and "..".
stays_below(path) if not regex.match(`(^|/)\.\.?(/|$)`, path)

CopyFileRequest if {
	startswith(input.path, concat("", [shared_directory, "/"]))
	stays_below(input.path)
	input.file_type in {"Regular", "Directory"}
}

CopyFileRequest if {
	startswith(input.path, concat("", [shared_directory, "/"]))
	stays_below(input.path)
	input.file_type == "Symlink"
	not startswith(input.symlink_target, "/")
	not regex.match(`(^|/)\.\.(/|$)`, input.symlink_target)
}

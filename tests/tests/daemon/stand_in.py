#!/usr/bin/python3
"""An emulator that a guest has taken over: looks at what it can reach, then plays the emulator."""
import ctypes, json, os, re, signal, socket, sys

ANSWERS = {
    "query-version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "stand-in"},
    "query-target": {"arch": "x86_64"},
    "query-machines": [{"name": "pc", "cpu-max": 8, "is-default": True,
                        "hotpluggable-cpus": True, "numa-mem-supported": True,
                        "deprecated": False}],
    "query-cpu-definitions": [], "qom-list-types": [], "query-chardev": [],
    "query-cpus-fast": [], "query-status": {"status": "running", "running": True},
}


def serve(source, sink):
    def say(message):
        sink.write(json.dumps(message) + "\n")
        sink.flush()
    say({"QMP": {"version": ANSWERS["query-version"], "capabilities": []}})
    for line in source:
        command = json.loads(line)
        reply = {"return": ANSWERS.get(command["execute"], {})}
        if "id" in command:
            reply["id"] = command["id"]
        say(reply)


if "-uuid" not in sys.argv:
    serve(sys.stdin, sys.stdout)
    sys.exit(0)

facts = json.loads(r'''FACTS''')
libc = ctypes.CDLL(None, use_errno=True)
pid, folder = facts["pid"], facts["folder"]


def call(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused")


def connect(path):
    with socket.socket(socket.AF_UNIX) as own:
        own.connect(path)


def write_own():
    with open(facts["own"], "r+b") as disk:
        disk.write(b"written")


def make_socket():
    path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "stand-in.sock")
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(path)
    os.unlink(path)


def append(path):
    with open(path, "ab"):
        pass


def trace():
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    call(libc.ptrace(0x4206, pid, 0, 0))  # PTRACE_SEIZE; ends with this process


def in_child(work):
    """What would change this process, or end with it."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("refused")


def read_memory():
    with open(f"/proc/{pid}/maps") as maps:
        start = int(maps.read().split("-")[0], 16)
    with open(f"/proc/{pid}/mem", "rb") as memory:
        memory.seek(start)
        assert memory.read(4)


ATTEMPTS = {
    "read the own disk": lambda: open(facts["own"], "rb").read(512),
    "write to the own disk": write_own,
    "make a socket": make_socket,
    "read the other's disk": lambda: open(facts["disk"], "rb").read(512),
    "write to the other's disk": lambda: append(facts["disk"]),
    "reach the other's disk through its process":
        lambda: open(f"/proc/{pid}/root{facts['disk']}", "rb").read(512),
    "list the other's descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
    "connect to the other's monitor": lambda: connect(f"{folder}/monitor.sock"),
    "connect to the other's channel": lambda: connect(f"{folder}/org.hostel.test.0"),
    "read the other's state": lambda: open(f"{folder}/status.xml").read(),
    "send the other a signal": lambda: os.kill(pid, signal.SIGCONT),
    "send the daemon a signal": lambda: os.kill(facts["daemon"], 0),
    "trace the other": lambda: in_child(trace),
    "read the other's memory": read_memory,
    "see the other's command line": lambda: open(f"/proc/{pid}/cmdline").read(),
    "change the other's limits": lambda: __import__("resource").prlimit(
        pid, __import__("resource").RLIMIT_NOFILE),
    "connect to an abstract socket outside": lambda: connect("\0" + facts["abstract"]),
    "list the daemon's definitions": lambda: os.listdir(facts["state"] + "/domains"),
    "read the host's passwords": lambda: open("/etc/shadow").read(),
    "write to the host's settings": lambda: append("/etc/passwd"),
    "make a file outside": lambda: in_child(
        lambda: os.close(os.open("/var/tmp", os.O_TMPFILE | os.O_WRONLY))),
    "make a device of the host's disk": lambda: in_child(lambda: (
        os.mknod("/var/tmp/stand-in-node", 0o60600, os.makedev(7, 0)),
        os.unlink("/var/tmp/stand-in-node"))),
    "become root": lambda: in_child(lambda: os.setresuid(0, 0, 0)),
    "make a user namespace": lambda: in_child(lambda: call(libc.unshare(0x10000000))),
    "mount": lambda: in_child(lambda: (
        call(libc.unshare(0x20000)), call(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)))),
}

for name, attempt in ATTEMPTS.items():
    try:
        attempt()
        print(json.dumps([name, True]), flush=True)
    except (OSError, AssertionError):
        print(json.dumps([name, False]), flush=True)

number = int(re.search(r"fd=(\d+)", " ".join(sys.argv)).group(1))
signal.signal(signal.SIGTERM, signal.SIG_DFL)
with socket.socket(fileno=number) as listener:
    stream = listener.accept()[0]
    serve(stream.makefile("r"), stream.makefile("w"))

/* The program of the image `hello`: prints what the kernel shows from inside the container.
 *
 * Freestanding on purpose: no C library is linked, so that the whole image is a few kilobytes and is the same on every
 * machine it is built on. It only reads and prints; it must not fail where something is missing.
 */

typedef unsigned long word;
typedef unsigned char byte;

#if defined(__x86_64__)
enum { READ = 0, WRITE = 1, CLOSE = 3, IOCTL = 16, GETPID = 39, SOCKET = 41, UNAME = 63, GETUID = 102, GETGID = 104,
       GETGROUPS = 115, EXIT_GROUP = 231, OPENAT = 257 };
static long call(long number, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}
__asm__(".globl _start\n_start:\n xor %ebp, %ebp\n and $-16, %rsp\n call hello\n");
#elif defined(__aarch64__) || (defined(__riscv) && __riscv_xlen == 64)
enum { IOCTL = 29, OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64, EXIT_GROUP = 94, GETGROUPS = 158, UNAME = 160,
       GETPID = 172, GETUID = 174, GETGID = 176, SOCKET = 198 };
#if defined(__aarch64__)
static long call(long number, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = number;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n mov x29, #0\n bl hello\n");
#else
static long call(long number, long a, long b, long c, long d)
{
	register long a7 __asm__("a7") = number;
	register long a0 __asm__("a0") = a;
	register long a1 __asm__("a1") = b;
	register long a2 __asm__("a2") = c;
	register long a3 __asm__("a3") = d;
	__asm__ volatile("ecall" : "+r"(a0) : "r"(a7), "r"(a1), "r"(a2), "r"(a3) : "memory");
	return a0;
}
__asm__(".globl _start\n_start:\n call hello\n");
#endif
#else
#error "no system calls written down for this architecture"
#endif

/* The compiler may call these for loops and assignments of its own. */
void *memset(void *target, int value, word size)
{
	volatile byte *at = target;
	while (size--)
		*at++ = (byte)value;
	return target;
}

void *memcpy(void *target, const void *source, word size)
{
	volatile byte *at = target;
	const byte *from = source;
	while (size--)
		*at++ = *from++;
	return target;
}

static char output[65536];
static word used;

static void flush(void)
{
	word done = 0;
	while (done < used) {
		long count = call(WRITE, 1, (long)(output + done), (long)(used - done), 0);
		if (count <= 0)
			break;
		done += (word)count;
	}
	used = 0;
}

static void put(char letter)
{
	if (used == sizeof output)
		flush();
	output[used++] = letter;
}

static void text(const char *string)
{
	while (*string)
		put(*string++);
}

static void span(const char *start, const char *end)
{
	while (start < end)
		put(*start++);
}

static void number(word value)
{
	char digits[24];
	int count = 0;
	do
		digits[count++] = (char)('0' + value % 10);
	while (value /= 10);
	while (count)
		put(digits[--count]);
}

static void label(const char *name)
{
	word width = 0;
	text("  ");
	while (name[width])
		put(name[width++]);
	while (width++ < 14)
		put(' ');
}

/* The beginning of a file, closed by a zero; empty if it cannot be read. */
static char *content(const char *path, char *buffer, word size)
{
	word filled = 0;
	long file = call(OPENAT, -100, (long)path, 0, 0);
	if (file >= 0) {
		while (filled + 1 < size) {
			long count = call(READ, file, (long)(buffer + filled), (long)(size - 1 - filled), 0);
			if (count <= 0)
				break;
			filled += (word)count;
		}
		call(CLOSE, file, 0, 0, 0);
	}
	buffer[filled] = 0;
	return buffer;
}

static int begins(const char *string, const char *prefix)
{
	while (*prefix)
		if (*string++ != *prefix++)
			return 0;
	return 1;
}

static const char *line_end(const char *at)
{
	while (*at && *at != '\n')
		at++;
	return at;
}

static const char *next_line(const char *at)
{
	at = line_end(at);
	return *at ? at + 1 : at;
}

static const char *skip(const char *at)
{
	while (*at == ' ' || *at == '\t')
		at++;
	return at;
}

static const char *word_end(const char *at)
{
	while (*at && *at != ' ' && *at != '\t' && *at != '\n')
		at++;
	return at;
}

/* The value of a line `NAME:\tVALUE` of /proc/self/status. */
static const char *status(const char *file, const char *name)
{
	for (; *file; file = next_line(file))
		if (begins(file, name)) {
			while (*file != ':')
				file++;
			return skip(file + 1);
		}
	return "";
}

static void identity(void)
{
	unsigned groups[64];
	long count = call(GETGROUPS, 64, (long)groups, 0, 0);
	label("pid");
	number((word)call(GETPID, 0, 0, 0, 0));
	put('\n');
	label("user");
	number((word)call(GETUID, 0, 0, 0, 0));
	put(':');
	number((word)call(GETGID, 0, 0, 0, 0));
	for (long index = 0; index < count && index < 64; index++) {
		text(index ? "," : "  groups ");
		number(groups[index]);
	}
	put('\n');
}

static void id_map(void)
{
	static char buffer[4096];
	const char *at = content("/proc/self/uid_map", buffer, sizeof buffer);
	label("id map");
	for (int index = 0; *at && index < 8; index++, at = next_line(at)) {
		const char *inside = skip(at), *outside = skip(word_end(inside)), *size = skip(word_end(outside));
		if (index)
			text(", ");
		span(inside, word_end(inside));
		text(" is ");
		span(outside, word_end(outside));
		text(" outside (");
		span(size, word_end(size));
		text(")");
	}
	put('\n');
}

static const char *const capability_names[] = {
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
	"linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
	"sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
	"sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
	"mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
	"checkpoint_restore",
};

static void privileges(void)
{
	static char buffer[8192];
	const char *file = content("/proc/self/status", buffer, sizeof buffer);
	const char *digits = status(file, "CapEff:");
	word mask = 0, count = 0;
	for (; *digits && *digits != '\n'; digits++)
		mask = mask << 4 | (word)(*digits <= '9' ? *digits - '0' : *digits - 'a' + 10);
	label("capabilities");
	for (word bit = 0; bit < sizeof capability_names / sizeof *capability_names; bit++)
		if (mask >> bit & 1) {
			if (count && count % 8 == 0)
				text(",\n                ");
			else if (count)
				text(", ");
			text(capability_names[bit]);
			count++;
		}
	text(count ? "\n" : "none\n");
	label("seccomp");
	switch (*status(file, "Seccomp:")) {
	case '2': text("filtered"); break;
	case '1': text("strict"); break;
	default: text("off");
	}
	text(*status(file, "NoNewPrivs:") == '1' ? ", no new privileges\n" : "\n");
}

static void system_names(void)
{
	static char names[6][65];
	if (call(UNAME, (long)names, 0, 0, 0) != 0)
		return;
	label("host name");
	text(names[1]);
	put('\n');
	label("kernel");
	text(names[2]);
	put('\n');
}

static int limit(const char *name, const char *v2, const char *v1, int more)
{
	static char buffer[256];
	const char *value = content(v2, buffer, sizeof buffer);
	if (!*value)
		value = content(v1, buffer, sizeof buffer);
	if (!*value)
		return more;
	if (more)
		text(", ");
	text(name);
	put(' ');
	/* What cgroup v1 says when there is no limit. */
	if (begins(value, "922337203685477") || begins(value, "-1"))
		text("max");
	else
		span(value, line_end(value));
	return 1;
}

static void limits(void)
{
	int more = 0;
	label("limits");
	more = limit("memory", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes", more);
	more = limit("pids", "/sys/fs/cgroup/pids.max", "/sys/fs/cgroup/pids/pids.max", more);
	more = limit("cpu", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", more);
	text(more ? "\n" : "not visible\n");
}

static void mounts(void)
{
	static char buffer[65536];
	const char *at = content("/proc/self/mounts", buffer, sizeof buffer);
	for (int index = 0; *at; index++, at = next_line(at)) {
		const char *place = skip(word_end(at)), *type = skip(word_end(place)), *options = skip(word_end(type));
		label(index ? "" : "mounts");
		span(place, word_end(place));
		text(" (");
		span(type, word_end(type));
		text(begins(options, "ro") ? ", ro)\n" : ")\n");
	}
}

struct request {
	char name[16];
	unsigned short family;
	unsigned short port;
	byte address[4];
	char rest[16];
};

static void address4(const char *name, const char *end)
{
	struct request request;
	long socket = call(SOCKET, 2, 2, 0, 0);
	memset(&request, 0, sizeof request);
	for (word index = 0; name + index < end && index < 15; index++)
		request.name[index] = name[index];
	if (socket < 0)
		return;
	if (call(IOCTL, socket, 0x8915, (long)&request, 0) == 0) {
		put(' ');
		for (int index = 0; index < 4; index++) {
			if (index)
				put('.');
			number(request.address[index]);
		}
	}
	call(CLOSE, socket, 0, 0, 0);
}

static void address6(const char *name, const char *end)
{
	static char buffer[8192];
	const char *at = content("/proc/net/if_inet6", buffer, sizeof buffer);
	for (; *at; at = next_line(at)) {
		const char *device = line_end(at);
		const char *last = device;
		while (device > at && device[-1] != ' ')
			device--;
		if (last - device != end - name)
			continue;
		int same = 1;
		for (word index = 0; device + index < last; index++)
			same &= device[index] == name[index];
		if (!same)
			continue;
		put(' ');
		for (int index = 0; index < 32; index++) {
			if (index && index % 4 == 0)
				put(':');
			put(at[index]);
		}
	}
}

static void network(void)
{
	static char buffer[16384];
	const char *at = next_line(next_line(content("/proc/net/dev", buffer, sizeof buffer)));
	int any = 0;
	for (; *at; at = next_line(at)) {
		const char *name = skip(at), *end = name;
		while (*end && *end != ':' && *end != '\n')
			end++;
		label(any ? "" : "network");
		span(name, end);
		address4(name, end);
		address6(name, end);
		put('\n');
		any = 1;
	}
	if (!any) {
		label("network");
		text("none\n");
	}
}

__attribute__((used, noreturn)) void hello(void)
{
	text("Hello from a container. This is what the kernel shows in here:\n\n");
	identity();
	id_map();
	privileges();
	system_names();
	limits();
	mounts();
	network();
	text("\nTry next: coracle run --rm -it host    a shell on a throw-away copy of this system\n");
	flush();
	call(EXIT_GROUP, 0, 0, 0, 0);
	for (;;)
		;
}

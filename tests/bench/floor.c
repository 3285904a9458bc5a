/* The floor: what a container costs when nobody manages it.
 *
 * It does what every engine must do for `run --rm --network none IMAGE true` and nothing else: cgroups, clone3 with the
 * same namespaces, an overlay, /proc, /dev, /sys, pivot_root, execve of a static `true`, wait, remove. No image
 * look-up, record, log, seccomp filter or capability set. The bench divides by it.
 *
 *   floor DIR     DIR holds lower/ (a root file system with /bin/true); as an ordinary user it makes a user namespace
 *                 and calls newuidmap and newgidmap, as an engine must.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

static void check(int failed, const char *what) {
    if (failed) {
        fprintf(stderr, "floor: %s: %s\n", what, strerror(errno));
        _exit(125);
    }
}

static void put(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    check(fd < 0 || write(fd, text, strlen(text)) < 0, path);
    close(fd);
}

static void mount_at(const char *source, const char *target, const char *type, unsigned long flags, const char *data) {
    mkdir(target, 0755);
    check(mount(source, target, type, flags, data) != 0, target);
}

static void device(const char *name, int minor, int major_number, int rootless) {
    char path[64], source[64];
    snprintf(path, sizeof path, "dev/%s", name);
    snprintf(source, sizeof source, "/dev/%s", name);
    if (rootless) {
        close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
        check(mount(source, path, NULL, MS_BIND, NULL) != 0, path);
    } else {
        check(mknod(path, S_IFCHR | 0666, makedev(major_number, minor)) != 0, path);
    }
}

static void child(const char *dir, int sync, int rootless) {
    char byte, data[1024];
    check(read(sync, &byte, 1) != 1, "wait for the parent");
    check(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0, "make / private");
    check(chdir(dir) != 0, dir);
    snprintf(data, sizeof data, "lowerdir=lower,upperdir=upper,workdir=work%s", rootless ? ",userxattr" : ",volatile");
    mount_at("overlay", "merged", "overlay", 0, data);
    check(chdir("merged") != 0, "merged");
    mount_at("proc", "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("tmpfs", "dev", "tmpfs", MS_NOSUID, "mode=755,size=65536k");
    static const struct { const char *name; int minor; int major; } nodes[] = {
        {"null", 3, 1}, {"zero", 5, 1}, {"full", 7, 1}, {"random", 8, 1}, {"urandom", 9, 1}, {"tty", 0, 5}};
    for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++)
        device(nodes[i].name, nodes[i].minor, nodes[i].major, rootless);
    check(symlink("/proc/self/fd", "dev/fd") || symlink("/proc/self/fd/0", "dev/stdin") ||
          symlink("/proc/self/fd/1", "dev/stdout") || symlink("/proc/self/fd/2", "dev/stderr"), "links in /dev");
    mount_at("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620");
    check(symlink("pts/ptmx", "dev/ptmx") != 0, "dev/ptmx");
    mount_at("shm", "dev/shm", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=1777,size=65536k");
    mount_at("mqueue", "dev/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_at("sysfs", "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY, NULL);
    check(syscall(SYS_pivot_root, ".", ".") != 0, "pivot_root");
    check(umount2(".", MNT_DETACH) != 0, "leave the old root");
    check(chdir("/") != 0, "/");
    check(sethostname("floor", 5) != 0, "sethostname");
    char *argv[] = {"/bin/true", NULL}, *envp[] = {NULL};
    execve(argv[0], argv, envp);
    check(1, "/bin/true");
}

static void helper(const char *program, pid_t pid, unsigned own, unsigned start) {
    char target[16], one[16], first[16];
    snprintf(target, sizeof target, "%d", pid);
    snprintf(one, sizeof one, "%u", own);
    snprintf(first, sizeof first, "%u", start);
    pid_t worker = vfork();
    if (worker == 0) {
        execl(program, program, target, "0", one, "1", "1", first, "65536", (char *)NULL);
        _exit(127);
    }
    int status;
    check(worker < 0 || waitpid(worker, &status, 0) < 0 || status != 0, program);
}

static unsigned subordinate(const char *file) {
    char line[256], name[64];
    const char *user = getenv("USER");
    unsigned start = 0, count;
    FILE *stream = fopen(file, "re");
    check(stream == NULL, file);
    while (fgets(line, sizeof line, stream))
        if (sscanf(line, "%63[^:]:%u:%u", name, &start, &count) == 3 && user && strcmp(name, user) == 0)
            break;
    fclose(stream);
    return start;
}

static int groups;
static char group[16][256];

/* A cgroup in each hierarchy that there is; a user without a delegated one has none. */
static void make_groups(void) {
    char line[1024], point[256];
    FILE *stream = fopen("/proc/self/mountinfo", "re");
    check(stream == NULL, "read mountinfo");
    while (groups < 16 && fgets(line, sizeof line, stream)) {
        if (!strstr(line, " - cgroup") || sscanf(line, "%*s %*s %*s %*s %255s", point) != 1)
            continue;
        if (strstr(line, "cpuset")) /* needs cpus and mems first, and no default limit lives there */
            continue;
        snprintf(group[groups], sizeof group[0], "%.200s/floor-%d", point, getpid());
        if (mkdir(group[groups], 0755) == 0)
            groups++;
    }
    fclose(stream);
}

static void remove_tree(const char *path) {
    DIR *directory = opendir(path);
    struct dirent *entry;
    char below[1024];
    while (directory && (entry = readdir(directory)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) {
            snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
            if (unlink(below) != 0)
                remove_tree(below);
        }
    if (directory)
        closedir(directory);
    rmdir(path);
}

int main(int argc, char **argv) {
    if (argc != 2)
        return 125;
    check(chdir(argv[1]) != 0, argv[1]);
    int rootless = getuid() != 0, sync[2], status;
    mkdir("upper", 0755), mkdir("work", 0755), mkdir("merged", 0755);
    if (!rootless)
        make_groups();
    check(pipe2(sync, O_CLOEXEC) != 0, "pipe");
    struct clone_args args = {.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET |
                                       CLONE_NEWCGROUP | (rootless ? CLONE_NEWUSER : 0),
                              .exit_signal = SIGCHLD};
    pid_t pid = syscall(SYS_clone3, &args, sizeof args);
    check(pid < 0, "clone3");
    if (pid == 0)
        child(argv[1], sync[0], rootless);
    if (rootless) {
        helper("/usr/bin/newuidmap", pid, getuid(), subordinate("/etc/subuid"));
        helper("/usr/bin/newgidmap", pid, getgid(), subordinate("/etc/subgid"));
    }
    char text[512], number[16];
    snprintf(number, sizeof number, "%d", pid);
    for (int i = 0; i < groups; i++) {
        snprintf(text, sizeof text, "%s/cgroup.procs", group[i]);
        put(text, number);
    }
    check(write(sync[1], "x", 1) != 1, "let the child go");
    check(waitpid(pid, &status, 0) != pid, "wait");
    for (int i = 0; i < groups; i++)
        while (rmdir(group[i]) != 0 && errno == EBUSY)
            ;
    remove_tree("upper"), remove_tree("work"), remove_tree("merged");
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// Preloaded into a build and everything it starts: a disk with a number of bytes left.
//
// What is written to files below the folders of FAULT_DISK_ROOTS is counted in FAULT_DISK_STATE, a
// file that all processes map: int64 bytes left, int64 calls refused. The write that reaches the
// end is cut short, as a real disk does it; what comes after it fails with ENOSPC, and so does
// making and renaming files. Programs that are started with an environment of their own get this
// one's three variables all the same.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

extern char** environ;

static int64_t* state;
static char roots[4096], kept[3][4400];
static const char* const kNames[3] = {"LD_PRELOAD", "FAULT_DISK_ROOTS", "FAULT_DISK_STATE"};

__attribute__((constructor)) static void Start(void) {
  for (int i = 0; i < 3; ++i) {
    const char* value = getenv(kNames[i]);
    if (!value) return;
    snprintf(kept[i], sizeof kept[i], "%s=%s", kNames[i], value);
  }
  snprintf(roots, sizeof roots, "%s", getenv("FAULT_DISK_ROOTS"));
  const int file = open(getenv("FAULT_DISK_STATE"), O_RDWR | O_CLOEXEC);
  if (file < 0) return;
  void* mapped = mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (mapped != MAP_FAILED) state = mapped;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int Below(const char* path) {
  for (const char* root = roots; *root;) {
    const size_t length = strcspn(root, ":");
    if (!strncmp(path, root, length) && (path[length] == '/' || !path[length])) return 1;
    root += length + (root[length] == ':');
  }
  return 0;
}

static int FileBelow(int file) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  return Below(path);
}

static int NameBelow(int folder, const char* name) {
  char whole[8200], base[4096];
  if (!name) return 0;
  if (name[0] == '/') return Below(name);
  if (folder == AT_FDCWD) {
    if (!getcwd(base, sizeof base)) return 0;
  } else {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    const ssize_t length = readlink(link, base, sizeof base - 1);
    if (length <= 0) return 0;
    base[length] = 0;
  }
  snprintf(whole, sizeof whole, "%s/%s", base, name);
  return Below(whole);
}

static int Refuse(void) {
  __atomic_fetch_add(&state[1], 1, __ATOMIC_SEQ_CST);
  errno = ENOSPC;
  return -1;
}

static int IsFull(void) { return state && __atomic_load_n(&state[0], __ATOMIC_SEQ_CST) <= 0; }

// How many of `size` bytes may be written to `file`; -1 for none.
static ssize_t Allowed(int file, size_t size) {
  if (!state || !size || !FileBelow(file)) return size;
  const int64_t left = __atomic_fetch_sub(&state[0], (int64_t)size, __ATOMIC_SEQ_CST);
  if (left >= (int64_t)size) return size;
  return left > 0 ? left : Refuse();
}

ssize_t write(int file, const void* data, size_t size) {
  const ssize_t part = Allowed(file, size);
  return part < 0 ? -1 : REAL(write)(file, data, part);
}

ssize_t pwrite(int file, const void* data, size_t size, off_t at) {
  const ssize_t part = Allowed(file, size);
  return part < 0 ? -1 : REAL(pwrite)(file, data, part, at);
}

ssize_t pwrite64(int file, const void* data, size_t size, off_t at) {
  return pwrite(file, data, size, at);
}

ssize_t writev(int file, const struct iovec* parts, int count) {
  if (!state || !FileBelow(file)) return REAL(writev)(file, parts, count);
  for (int i = 0; i < count; ++i)  // the first that has bytes; callers go on with the rest
    if (parts[i].iov_len) return write(file, parts[i].iov_base, parts[i].iov_len);
  return 0;
}

ssize_t sendfile(int to, int from, off_t* at, size_t size) {
  const ssize_t part = Allowed(to, size > 65536 ? 65536 : size);
  return part < 0 ? -1 : REAL(sendfile)(to, from, at, part);
}

ssize_t sendfile64(int to, int from, off_t* at, size_t size) {
  return sendfile(to, from, at, size);
}

ssize_t copy_file_range(int from, off64_t* from_at, int to, off64_t* to_at, size_t size,
                        unsigned flags) {
  const ssize_t part = Allowed(to, size > 65536 ? 65536 : size);
  return part < 0 ? -1 : REAL(copy_file_range)(from, from_at, to, to_at, part, flags);
}

int ftruncate(int file, off_t size) {
  return IsFull() && size && FileBelow(file) ? Refuse() : REAL(ftruncate)(file, size);
}

int ftruncate64(int file, off_t size) { return ftruncate(file, size); }

int fallocate(int file, int mode, off_t at, off_t size) {
  return IsFull() && FileBelow(file) ? Refuse() : REAL(fallocate)(file, mode, at, size);
}

int fsync(int file) { return IsFull() && FileBelow(file) ? Refuse() : REAL(fsync)(file); }

int fdatasync(int file) { return IsFull() && FileBelow(file) ? Refuse() : REAL(fdatasync)(file); }

// Whether a new name cannot be made: the disk is full, and it is not there already.
static int NoRoom(int folder, const char* name) {
  struct stat facts;
  return IsFull() && NameBelow(folder, name) && fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW);
}

static mode_t Mode(int flags, va_list rest) {
  return flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
}

#define OPEN(name)                                                                       \
  int name(const char* path, int flags, ...) {                                           \
    va_list rest;                                                                        \
    va_start(rest, flags);                                                               \
    const mode_t mode = Mode(flags, rest);                                               \
    va_end(rest);                                                                        \
    if (flags & O_CREAT && NoRoom(AT_FDCWD, path)) return Refuse();                      \
    return ((int (*)(const char*, int, ...))dlsym(RTLD_NEXT, #name))(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                           \
  int name(int folder, const char* path, int flags, ...) {                                     \
    va_list rest;                                                                              \
    va_start(rest, flags);                                                                     \
    const mode_t mode = Mode(flags, rest);                                                     \
    va_end(rest);                                                                              \
    if (flags & O_CREAT && NoRoom(folder, path)) return Refuse();                              \
    return ((int (*)(int, const char*, int, ...))dlsym(RTLD_NEXT, #name))(folder, path, flags, \
                                                                          mode);               \
  }
OPENAT(openat)
OPENAT(openat64)

FILE* fopen(const char* path, const char* mode) {
  if (strchr("wax", mode[0]) && NoRoom(AT_FDCWD, path)) return Refuse(), NULL;
  return REAL(fopen)(path, mode);
}

FILE* fopen64(const char* path, const char* mode) { return fopen(path, mode); }

int mkdir(const char* path, mode_t mode) {
  return NoRoom(AT_FDCWD, path) ? Refuse() : REAL(mkdir)(path, mode);
}

int symlink(const char* target, const char* path) {
  return NoRoom(AT_FDCWD, path) ? Refuse() : REAL(symlink)(target, path);
}

int link(const char* from, const char* to) {
  return NoRoom(AT_FDCWD, to) ? Refuse() : REAL(link)(from, to);
}

int linkat(int from_folder, const char* from, int to_folder, const char* to, int flags) {
  return NoRoom(to_folder, to) ? Refuse() : REAL(linkat)(from_folder, from, to_folder, to, flags);
}

int rename(const char* from, const char* to) {
  return NoRoom(AT_FDCWD, to) ? Refuse() : REAL(rename)(from, to);
}

// ---- what is started

static char** Environment(char* const* given, char** room, size_t limit) {
  size_t count = 0;
  for (; given && given[count]; ++count) {
    if (count + 4 >= limit) return (char**)given;
    room[count] = given[count];
  }
  if (!state) return (char**)given;
  for (int i = 0; i < 3; ++i) {
    const size_t length = strlen(kNames[i]);
    size_t at = 0;
    while (at < count && (strncmp(room[at], kNames[i], length) || room[at][length] != '=')) ++at;
    room[at] = kept[i];
    if (at == count) ++count;
  }
  room[count] = NULL;
  return room;
}

#define ROOM 4096

int execve(const char* path, char* const argv[], char* const envp[]) {
  char* room[ROOM];
  return REAL(execve)(path, argv, Environment(envp, room, ROOM));
}

int execv(const char* path, char* const argv[]) { return execve(path, argv, environ); }

int execvpe(const char* file, char* const argv[], char* const envp[]) {
  char* room[ROOM];
  return REAL(execvpe)(file, argv, Environment(envp, room, ROOM));
}

int execvp(const char* file, char* const argv[]) { return execvpe(file, argv, environ); }

int posix_spawn(pid_t* pid, const char* path, const posix_spawn_file_actions_t* actions,
                const posix_spawnattr_t* attributes, char* const argv[], char* const envp[]) {
  char* room[ROOM];
  return REAL(posix_spawn)(pid, path, actions, attributes, argv, Environment(envp, room, ROOM));
}

int posix_spawnp(pid_t* pid, const char* file, const posix_spawn_file_actions_t* actions,
                 const posix_spawnattr_t* attributes, char* const argv[], char* const envp[]) {
  char* room[ROOM];
  return REAL(posix_spawnp)(pid, file, actions, attributes, argv, Environment(envp, room, ROOM));
}

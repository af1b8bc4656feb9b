// Comes before every source of QuickJS. Its WASI build has no limit for its stack, so that a deeply nested document would
// trap the module; built like this it keeps to JS_SetMaxStackSize, and throws. EMSCRIPTEN stands for: no threads.
#include <alloca.h>
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <malloc.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#undef __wasi__
#define EMSCRIPTEN 1

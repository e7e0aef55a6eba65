// Keeps signals away from the thread that computes.
//
// oneDNN's generated matrix kernels use the stack pointer as a pointer into their work space on the heap (jit_avx512_common_gemm_f32: large K). A signal handler that runs
// on the thread at that moment writes its frame over whatever lies below: with AVX-512 and AMX state that is over 10 KB of somebody's memory, and the process dies later of a
// corrupted heap. Seen in a notebook kernel whose stop button sends SIGINT. So the computing thread, and the threads it starts from then on, block every signal that
// comes from outside; the process still gets them, on one of the threads that Node started before.

#include <initializer_list>

#include <node_api.h>

#ifndef _WIN32
#include <pthread.h>
#include <signal.h>
#endif

NAPI_MODULE_INIT() {
  (void)exports;
#ifndef _WIN32
  sigset_t outside;
  sigfillset(&outside);
  // What the thread does to itself must still be heard.
  for (int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&outside, own);
  if (pthread_sigmask(SIG_BLOCK, &outside, nullptr) != 0) napi_throw_error(env, nullptr, "signals cannot be blocked on this thread");
#else
  (void)env;
#endif
  return exports;
}

/* Runs a SavedModel through TensorFlow's C API, which stands on the C++ loader that TF Serving embeds.

   usage: saved_model_loader MODEL TEXT_OPS.so... < request > answer

   There is no Python in this process. The request says, separated by white space:

     input NAME:INDEX RANK SIZE... STRING...     the strings of a tensor in hexadecimal, "-" for an empty one
     output NAME:INDEX

   and the answer has a line for each output: NAME:INDEX, its TF_DataType, RANK, SIZE... and its values, strings as
   above. Whatever goes wrong is said on standard error, and the exit status is 1. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"

#define MOST_TENSORS 16
#define MOST_DIMS 8

static TF_Status* status;

static void fail(const char* what, const char* why) {
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

static void check(const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* The next word of standard input, to be freed; NULL at its end. */
static char* next_word(void) {
  size_t size = 0, room = 64;
  char* word = malloc(room);
  int c = getchar();
  while (c == ' ' || c == '\n') c = getchar();
  for (; c != EOF && c != ' ' && c != '\n'; c = getchar()) {
    if (size + 1 == room) word = realloc(word, room *= 2);
    word[size++] = (char)c;
  }
  word[size] = 0;
  if (size) return word;
  free(word);
  return NULL;
}

static char* needed_word(const char* what) {
  char* word = next_word();
  if (!word) fail("the request ends before", what);
  return word;
}

static int64_t next_number(const char* what) {
  char* word = needed_word(what);
  int64_t number = atoll(word);
  free(word);
  return number;
}

static TF_Output next_place(TF_Graph* graph, char** name) {
  *name = needed_word("the name of a tensor");
  char* operation = strdup(*name);
  char* colon = strrchr(operation, ':');
  if (!colon) fail(*name, "expected NAME:INDEX");
  *colon = 0;
  TF_Output place = {TF_GraphOperationByName(graph, operation), atoi(colon + 1)};
  if (!place.oper) fail(*name, "the graph has no such operation");
  free(operation);
  return place;
}

static TF_Tensor* next_strings(void) {
  int64_t dims[MOST_DIMS], count = 1;
  int rank = (int)next_number("the rank");
  if (rank > MOST_DIMS) fail("the rank", "too large");
  for (int i = 0; i < rank; i++) count *= dims[i] = next_number("a size");
  TF_Tensor* tensor = TF_AllocateTensor(TF_STRING, dims, rank, count * sizeof(TF_TString));
  TF_TString* strings = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) {
    char* hex = needed_word("a string");
    size_t size = strcmp(hex, "-") ? strlen(hex) / 2 : 0;
    char* bytes = malloc(size + 1);
    for (size_t j = 0; j < size; j++) {
      unsigned byte;
      sscanf(hex + 2 * j, "%2x", &byte);
      bytes[j] = (char)byte;
    }
    TF_StringInit(&strings[i]);
    TF_StringCopy(&strings[i], bytes, size);
    free(bytes);
    free(hex);
  }
  return tensor;
}

static void print(const char* name, const TF_Tensor* tensor) {
  int64_t count = TF_TensorElementCount(tensor);
  printf("%s %d %d", name, TF_TensorType(tensor), TF_NumDims(tensor));
  for (int i = 0; i < TF_NumDims(tensor); i++) printf(" %lld", (long long)TF_Dim(tensor, i));
  const void* data = TF_TensorData(tensor);
  for (int64_t i = 0; i < count; i++) {
    switch (TF_TensorType(tensor)) {
      case TF_FLOAT:
        printf(" %.9g", ((const float*)data)[i]);
        break;
      case TF_INT32:
        printf(" %d", ((const int32_t*)data)[i]);
        break;
      case TF_INT64:
        printf(" %lld", (long long)((const int64_t*)data)[i]);
        break;
      case TF_BOOL:
        printf(" %d", ((const unsigned char*)data)[i]);
        break;
      case TF_STRING: {
        const TF_TString* string = (const TF_TString*)data + i;
        const unsigned char* bytes = (const unsigned char*)TF_StringGetDataPointer(string);
        size_t size = TF_StringGetSize(string);
        printf(size ? " " : " -");
        for (size_t j = 0; j < size; j++) printf("%02x", bytes[j]);
        break;
      }
      default:
        fail(name, "a type that this program does not print");
    }
  }
  printf("\n");
}

int main(int argc, char** argv) {
  if (argc < 2) fail("usage", "saved_model_loader MODEL TEXT_OPS.so... < request > answer");
  status = TF_NewStatus();
  for (int i = 2; i < argc; i++) {
    TF_LoadLibrary(argv[i], status);
    check(argv[i]);
  }
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(options, NULL, argv[1], tags, 1, graph, NULL, status);
  check(argv[1]);

  TF_Output inputs[MOST_TENSORS], outputs[MOST_TENSORS];
  TF_Tensor *fed[MOST_TENSORS], *fetched[MOST_TENSORS];
  char* names[MOST_TENSORS];
  int fed_count = 0, fetched_count = 0;
  for (char* word = next_word(); word; word = next_word()) {
    if (fed_count == MOST_TENSORS || fetched_count == MOST_TENSORS) fail("the request", "too many tensors");
    if (!strcmp(word, "input")) {
      char* name;
      inputs[fed_count] = next_place(graph, &name);
      fed[fed_count++] = next_strings();
      free(name);
    } else if (!strcmp(word, "output")) {
      outputs[fetched_count] = next_place(graph, &names[fetched_count]);
      fetched_count++;
    } else {
      fail(word, "expected input or output");
    }
    free(word);
  }
  TF_SessionRun(session, NULL, inputs, fed, fed_count, outputs, fetched, fetched_count, NULL, 0, NULL, status);
  check("running the model");
  for (int i = 0; i < fetched_count; i++) print(names[i], fetched[i]);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return 0;
}

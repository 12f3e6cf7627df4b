/* Runs an exported purifier through TensorFlow's C API.
     purify MODEL INPUT OUTPUT HEIGHT WIDTH CHANNELS <images >purified
   MODEL is a version's folder, INPUT and OUTPUT are what `saved_model_cli show`
   names, without `:0`; images are float32 in [0, 1], as they lie in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tensorflow/c/c_api.h>

static void stop_unless(int fine, const char *what) {
  if (fine) return;
  fprintf(stderr, "purify: %s\n", what);
  exit(1);
}
static void check(const TF_Status *status) {
  stop_unless(TF_GetCode(status) == TF_OK, TF_Message(status));
}
static float *read_all(size_t *count) {
  size_t room = 1 << 16;
  float *values = NULL;
  for (*count = 0;; room *= 2) {
    values = realloc(values, room * sizeof(float));
    stop_unless(values != NULL, "out of memory");
    *count += fread(values + *count, sizeof(float), room - *count, stdin);
    if (*count < room) return values;
  }
}
static TF_Output find(TF_Graph *graph, const char *name, int index) {
  TF_Output found = {TF_GraphOperationByName(graph, name), index};
  stop_unless(found.oper != NULL, "the model has no operation of that name");
  return found;
}
int main(int argc, char **argv) {
  stop_unless(argc == 7, "wants MODEL INPUT OUTPUT HEIGHT WIDTH CHANNELS");
  int64_t shape[] = {0, atoll(argv[4]), atoll(argv[5]), atoll(argv[6])};
  size_t count, size = shape[1] * shape[2] * shape[3];
  float *values = read_all(&count);
  stop_unless(size > 0 && count % size == 0, "not a whole number of images");
  shape[0] = count / size;
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_Session *session = TF_LoadSessionFromSavedModel(
      TF_NewSessionOptions(), NULL, argv[1], (const char *[]){"serve"}, 1,
      graph, NULL, status);
  check(status);
  TF_Tensor *images = TF_AllocateTensor(TF_FLOAT, shape, 4, count * 4);
  stop_unless(images != NULL, "out of memory");
  memcpy(TF_TensorData(images), values, count * 4);
  /* Outputs are in the order of their names: purified, valid. */
  TF_Output input = find(graph, argv[2], 0), outputs[2];
  for (int i = 0; i < 2; i++) outputs[i] = find(graph, argv[3], i);
  TF_Tensor *answers[2];
  TF_SessionRun(session, NULL, &input, &images, 1, outputs, answers, 2, NULL, 0,
                NULL, status);
  check(status);
  const unsigned char *valid = TF_TensorData(answers[1]);
  for (int64_t i = 0; i < shape[0]; i++)
    fprintf(stderr, "image %d: %s\n", (int)i, valid[i] ? "valid" : "not valid");
  return fwrite(TF_TensorData(answers[0]), 4, count, stdout) != count;
}

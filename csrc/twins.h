/* C twins of kernels, in the same slots: the yardstick of what the machine can do. `kernels/twin_layout.py` makes the
 * declarations of `struct context` and of all that it points to; `kernels/twins.py` has the wrappers. */
void twin_parse(const struct context *context, uint32_t count);
void twin_lookup(const struct context *context, uint32_t count);
void twin_rewrite(const struct context *context, uint32_t count);
int64_t twin_express(const struct context *context, uint32_t count);
const char *twin_layout(void);

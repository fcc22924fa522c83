# Writes OUT: the commit of the tree ROOT as a C string; "unknown" without git. Untouched when it is so
# already, so that nothing is compiled anew.
execute_process(COMMAND git -C ${ROOT} rev-parse --short=12 HEAD OUTPUT_VARIABLE commit
                OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
if(NOT commit MATCHES "^[0-9a-f]+$")
  set(commit unknown)
endif()
file(CONFIGURE OUTPUT ${OUT} CONTENT "#define PEMBERLEY_COMMIT \"${commit}\"\n" @ONLY)

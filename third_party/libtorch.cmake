# Finds libtorch: -DLIBTORCH=DIR (a libtorch, or the torch folder of a PyTorch installation), else the system's.
# Gives the target `libtorch` and RDPP_CUDA, which is ON where that libtorch was built with CUDA.
set(LIBTORCH "" CACHE PATH "A libtorch or PyTorch installation; empty: the system's libtorch-dev")
set(LIBTORCH_OLDEST 1.13)

if(LIBTORCH)
  if(NOT EXISTS ${LIBTORCH}/share/cmake/Torch/TorchConfig.cmake)
    message(FATAL_ERROR "LIBTORCH=${LIBTORCH} holds no share/cmake/Torch/TorchConfig.cmake. Name the folder of a "
                        "libtorch, or what python prints for: import torch; torch.__path__[0]")
  endif()
  find_package(Torch REQUIRED PATHS ${LIBTORCH}/share/cmake/Torch NO_DEFAULT_PATH)
else()
  find_package(Torch QUIET)
  if(NOT Torch_FOUND)
    message(FATAL_ERROR "No libtorch found. Install Debian's libtorch-dev (scripts/setup.sh does), or name one: "
                        "LIBTORCH=/path/to/libtorch scripts/build.sh")
  endif()
endif()
if(Torch_VERSION VERSION_LESS LIBTORCH_OLDEST)
  message(FATAL_ERROR "libtorch ${Torch_VERSION} is too old, ${LIBTORCH_OLDEST} or newer is needed; "
                      "name another one: LIBTORCH=/path/to/libtorch scripts/build.sh")
endif()

set(RDPP_CUDA OFF)
if(TARGET torch_cuda)
  set(RDPP_CUDA ON)
endif()
message(STATUS "libtorch ${Torch_VERSION}, CUDA ${RDPP_CUDA}")

add_library(libtorch INTERFACE)
target_link_libraries(libtorch INTERFACE ${TORCH_LIBRARIES})
separate_arguments(torch_flags UNIX_COMMAND "${TORCH_CXX_FLAGS}")
target_compile_options(libtorch INTERFACE ${torch_flags})
if(RDPP_CUDA)
  target_compile_definitions(libtorch INTERFACE RDPP_CUDA)
endif()
